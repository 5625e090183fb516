"""Windows folders that only their owner may read: the arguments of icacls. (Nobody has tried it with ssh.exe.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from machine import acl
from machine.errors import DriverFailed
from machine.run import Completed

SID = "S-1-5-21-1004336348-1177238915-682003330-1001"


class Windows:
    def __init__(self, whoami: str) -> None:
        self.whoami = whoami
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.calls.append(words)
        return Completed(words, 0, self.whoami if words[0] == "whoami" else "", "")


@pytest.mark.parametrize("user", ["pc\\ann", "AzureAD\\Ann S-1-5-18", 'pc\\a""b'])
def test_a_folder_is_the_users_and_the_systems(user: str) -> None:
    windows = Windows(f'"{user}","{SID}"\n')
    acl.make_private(Path("store"), windows)
    assert windows.calls == [
        ["whoami", "/user", "/fo", "csv", "/nh"],
        ["icacls", "store", "/inheritance:r", "/grant:r", f"*{SID}:(OI)(CI)F", "*S-1-5-18:(OI)(CI)F", "/q"],
    ]


def test_nothing_is_taken_away_where_the_user_isnt_known() -> None:
    windows = Windows("ERROR: Invalid argument/option - '/user'.\n")
    with pytest.raises(DriverFailed, match="whoami"):
        acl.make_private(Path("store"), windows)
    assert [words[0] for words in windows.calls] == ["whoami"]
