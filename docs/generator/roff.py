"""Man pages, docs/man/*.1: see man(7) of groff."""

from __future__ import annotations

from collections.abc import Iterator

from machine.cli.verbs import GROUPS

from .pages import EXIT_CODES, Entries, Page, paragraphs, root_page, variables


def man(page: Page) -> str:
    lines = [*_begin(page.command.replace(" ", "-"), page.summary), ".SH SYNOPSIS", rf"\fB{_roff(page.usage)}\fR"]
    lines += [".SH DESCRIPTION", *_body(page.text)]
    lines += _man_options(page, ".SH")
    for verb in page.verbs:
        lines += [_heading(".SH", verb.command.upper()), rf"\fB{_roff(verb.usage)}\fR", ".PP", *_body(verb.text)]
        lines += _man_options(verb, ".SS")
    if page.examples:
        lines.append(".SH EXAMPLES")
        for command, text in page.examples:
            lines += [_line(text), ".PP", ".RS 4", ".nf", _line(command), ".fi", ".RE", ".PP"]
        lines.pop()
    return "\n".join([*lines, ".SH SEE ALSO", r"\fBmachine\fR(1)"]) + "\n"


def man_of_machine() -> str:
    page = root_page()
    summary = "a Docker host from one command: a small Linux VM with the Docker daemon"
    lines = [*_begin("machine", summary), ".SH SYNOPSIS", rf"\fB{_roff(page.usage)}\fR"]
    lines += [".SH DESCRIPTION", *_body(page.text), *_man_options(page, ".SH")]
    lines.append(".SH VERBS")
    for group, verbs in GROUPS.items():
        lines.append(_heading(".SS", group))
        lines += _tagged((rf"\fBmachine\-{_roff(verb)}\fR(1)", text) for verb, (_, text) in verbs.items())
    lines += [".SH EXIT STATUS", *_tagged((_roff(code), text) for code, text in EXIT_CODES)]
    lines += [".SH ENVIRONMENT", *_tagged((rf"\fB{_roff(name)}\fR", text) for name, text in variables())]
    lines += [".SH FILES", *_tagged([(r"\fI\(ti/.machine\fR", "The store: machines, images, certificates, settings.")])]
    return "\n".join([*lines, ".SH SEE ALSO", r"\fBdocker\fR(1), \fBqemu\fR(1), \fBssh\fR(1)"]) + "\n"


def _begin(name: str, summary: str) -> list[str]:
    return [
        f'.TH {_roff(name.upper())} 1 "" machine "machine"',
        ".SH NAME",
        rf"{_roff(name)} \- {_roff(summary.rstrip('.'))}",
    ]


def _heading(request: str, title: str) -> str:
    return f'{request} "{_roff(title)}"'


def _body(text: str) -> list[str]:
    lines: list[str] = []
    for literal, paragraph in paragraphs(text):
        lines += [".nf", *map(_line, paragraph.splitlines()), ".fi"] if literal else [_line(paragraph)]
        lines.append(".PP")
    return lines[:-1]


def _man_options(page: Page, heading: str) -> list[str]:
    lines: list[str] = []
    for title, entries in page.options.items():
        lines.append(_heading(heading, title.upper() if heading == ".SH" else title))
        lines += _tagged((rf"\fB{_roff(names)}\fR", text) for names, text in entries)
    return lines


def _tagged(entries: Iterator[tuple[str, str]] | Entries) -> list[str]:
    """(what roff is to print as it is, text) as paragraphs with a tag each."""
    return [line for tag, text in entries for line in (".TP", tag, _line(" ".join(text.split())))]


def _line(text: str) -> str:
    """A line of text; one that begins as a request of roff's does mustn't be taken for one."""
    text = _roff(text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _roff(text: str) -> str:
    for character, name in (
        ("\\", r"\e"),
        ("-", r"\-"),
        ("'", r"\(aq"),
        ("`", r"\(ga"),
        ("^", r"\(ha"),
        ("~", r"\(ti"),
    ):
        text = text.replace(character, name)
    return "".join(character if character.isascii() else rf"\[u{ord(character):04X}]" for character in text)
