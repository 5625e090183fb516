"""The shells that `machine env` supports: how each sets a variable, and how it quotes.

This is a table and a few small functions, not templates: env runs in shell profiles, and importing jinja2 alone takes
36 ms, nearly as long as all of `machine env`. A value may have all characters of a path: blanks, quotes, `$`,
backticks, newlines. Each function here makes it one word, which the shell reads back unchanged.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from machine.errors import Usage

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_NEWLINES = re.compile(r"[\r\n]")


def sh(value: str) -> str:
    """Quote with double quotes, because scripts that parse docker-machine's output look for them."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'


def _fish(value: str) -> str:
    """Write a newline outside the quotes, because fish's `eval (…)` joins lines with blanks."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value).replace("\n", r'"\n"').replace("\r", r'"\r"') + '"'


def _powershell(value: str) -> str:
    """Double typographic quotes too: in PowerShell they end a string as plain ones do (about_Quoting_Rules)."""
    escaped = re.sub(r'([`"$“”„])', r"`\1", value)
    return '"' + escaped.replace("\n", "`n").replace("\r", "`r") + '"'


def _powershell_character(character: str) -> str:
    """In double quotes: what PowerShell reads as that character, in ASCII ([char] is one unit of UTF-16)."""
    units = character.encode("utf-16-be", "surrogatepass").hex().upper()
    return "".join(f"$([char]0x{units[at : at + 4]})" for at in range(0, len(units), 4))


def _cmd(value: str) -> str:
    """Leave the value unquoted: cmd takes everything up to the end of the line, quotes included."""
    if _NEWLINES.search(value) or '"' in value:
        raise _cannot("cmd", value)
    return value


def _tcsh(value: str) -> str:
    """Quote with single quotes, and escape the history's !, which is active even there."""
    if _NEWLINES.search(value):
        raise _cannot("tcsh", value)
    return "'" + value.replace("'", r"'\''").replace("!", r"\!") + "'"


def _emacs(value: str) -> str:
    return '"' + re.sub(r'([\\"])', r"\\\1", value) + '"'


def _cannot(shell: str, value: str) -> Usage:
    return Usage(f"{shell} can't hold the value {value!r}", hint="move the store: set MACHINE_STORAGE_PATH")


def _cmd_set(name: str, value: str) -> str:
    """Quote the whole assignment, so that & and similar characters don't end the command."""
    assignment = f"{name}={_cmd(value)}"
    return f'SET "{assignment}"' if re.search(r"[&|<>^() ]", value) else f"SET {assignment}"


@dataclass(frozen=True)
class Shell:
    """How a shell writes a line. word: quotes one word; run: a command that runs another command's output.

    character: a character, inside of its quotes, in ASCII; None where there is no way.
    """

    set: Callable[[str, str], str]
    unset: Callable[[str], str]
    comment: Callable[[str], str]
    run: Callable[[str], str]
    word: Callable[[str], str] = sh
    character: Callable[[str], str] | None = None

    def hint(self, argv: Sequence[str]) -> list[str]:
        """Two comments that say how to run what argv prints; none when argv doesn't fit on one line."""
        if any(_NEWLINES.search(word) for word in argv):
            return []
        return [self.comment("Run this command to configure your shell: "), self.comment(self.line(argv))]

    def line(self, argv: Sequence[str]) -> str:
        """The command line that runs what argv prints."""
        return self.run(" ".join(word if _PLAIN.fullmatch(word) else self.word(word) for word in argv))


_SH = Shell(
    set=lambda name, value: f"export {name}={sh(value)}",
    unset=lambda name: f"unset {name};",
    comment=lambda text: f"# {text}",
    run=lambda command: f'eval "$({command})"',
)
SHELLS = {
    "bash": _SH,
    "zsh": _SH,
    "sh": _SH,
    "fish": Shell(
        set=lambda name, value: f"set -gx {name} {_fish(value)};",
        unset=lambda name: f"set -e {name};",
        comment=lambda text: f"# {text}",
        run=lambda command: f"{command} | source",
        word=_fish,
    ),
    "powershell": Shell(
        set=lambda name, value: f"$Env:{name} = {_powershell(value)}",
        unset=lambda name: f"Remove-Item Env:\\{name} -ErrorAction Ignore",
        comment=lambda text: f"# {text}",
        run=lambda command: f"& {command} | Invoke-Expression",
        word=_powershell,
        character=_powershell_character,
    ),
    "cmd": Shell(
        set=_cmd_set,
        unset=lambda name: f"SET {name}=",
        comment=lambda text: f"REM {text}",
        run=lambda command: f"\t@FOR /f \"tokens=*\" %i IN ('{command}') DO @%i",
        word=lambda text: f'"{text}"',
    ),
    "tcsh": Shell(
        set=lambda name, value: f"setenv {name} {_tcsh(value)};",
        unset=lambda name: f"unsetenv {name};",
        # `:` is a command, whose words are expanded: unquoted, the backticks of the hint would be run.
        comment=lambda text: f": {_tcsh(text)};",
        run=lambda command: f'eval "`{command}`"',
        word=_tcsh,
    ),
    "emacs": Shell(
        set=lambda name, value: f"(setenv {_emacs(name)} {_emacs(value)})",
        unset=lambda name: f"(setenv {_emacs(name)} nil)",
        comment=lambda text: f";; {text}",
        run=lambda command: f"(with-temp-buffer (shell-command {_emacs(command)} (current-buffer)) (eval-buffer))",
    ),
}
# Other programs that use these shells' languages.
_ALIASES = {
    "ash": "sh",
    "csh": "tcsh",
    "dash": "sh",
    "ksh": "sh",
    "ksh93": "sh",
    "mksh": "sh",
    "pwsh": "powershell",
}
# So many parent processes are searched: a shell may have started make, which started a script, which started us.
_DEPTH = 30


def find(name: str) -> Shell:
    """The shell with that name, as typed or as its program is called. Raises Usage for an unknown one."""
    known = _canonical(name)
    if known is None:
        raise Usage(f'unknown shell "{name}": use {", ".join(SHELLS)}', hint="machine env --shell sh")
    return SHELLS[known]


def evaluated(*argv: str) -> str:
    """What to type to run what argv prints, in the user's shell; where that isn't known, in one of POSIX."""
    import os

    try:
        shell = find(detect(os.environ))
    except Usage:
        shell = _SH
    return shell.line(argv).strip()


def detect(environ: Mapping[str, str]) -> str:
    """The name of the user's shell: $SHELL, else the nearest parent process that is a shell. Raises Usage."""
    if shell := environ.get("SHELL"):
        return _base(shell)
    if name := _from_shellingham() or _from_names():
        return name
    raise Usage(f"unknown shell: set --shell to {', '.join(SHELLS)}", hint="machine env --shell sh")


def _from_shellingham() -> str:
    """Handles a login shell's leading dash, emulators of processors, and a shell that an interpreter runs."""
    try:
        import shellingham  # 5 ms, and hardly needed but on Windows, which sets no SHELL

        return str(shellingham.detect_shell(max_depth=_DEPTH)[0])
    except Exception:  # no shell; or a process that we may not look at, for which it has no error of its own
        return ""


def _from_names() -> str:
    """What shellingham can't tell: mksh, ksh93, emacs, and any shell where there is neither /proc nor ps."""
    import psutil  # 15 ms

    with contextlib.suppress(psutil.Error):
        for parent in psutil.Process().parents():
            if _canonical(_base(parent.name())):
                return _base(parent.name())
    return ""


def _canonical(name: str) -> str | None:
    chosen = _ALIASES.get(name.lower(), name.lower())
    return chosen if chosen in SHELLS else None


def _base(path: str) -> str:
    return re.split(r"[/\\]", path)[-1].lower().removesuffix(".exe")
