"""A question before something is lost. As with docker-machine the answer is read from wherever the input comes from:
`echo y | machine rm dev` is how scripts answer.
"""

from __future__ import annotations

import sys
from typing import TextIO

from machine.errors import Usage


def confirmed(question: str, *, hint: str, out: TextIO | None = None) -> bool:
    """Whether the answer begins with y or Y. out: where the question goes, stdout when None.

    Raises Usage, with the hint, when the input ends before there is an answer.
    """
    print(f"{question} (y/n): ", end="", flush=True, file=out or sys.stdout)
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer:
        print(file=out or sys.stdout)
        raise Usage("there was no answer, so nothing was done", hint=hint)
    return answer.strip().lower().startswith("y")
