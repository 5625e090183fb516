"""The reference of verbs, docs/reference/verbs.md."""

from __future__ import annotations

from collections.abc import Iterator

from machine.cli.verbs import GROUPS

from .pages import EXIT_CODES, Page, pages, paragraphs, root_page, variables


def markdown(page: Page, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {page.command}\n"
    yield _code(page.usage)
    for literal, text in paragraphs(page.text):
        yield _code(text) if literal else _prose(text) + "\n"
    for heading, entries in page.options.items():
        if heading != "Options":
            yield f"**{heading}**\n"
        yield "\n".join(f"- `{names}`: {_prose(text)}" if text else f"- `{names}`" for names, text in entries) + "\n"
    if page.examples:
        yield _code("\n".join(f"# {text}\n{command}" for command, text in page.examples))
    for verb in page.verbs:
        yield from markdown(verb, level + 1)


def _index() -> Iterator[str]:
    for group, verbs in GROUPS.items():
        yield f"| **{group}** | |"
        yield from (f"| [`{verb}`](#machine-{verb}) | {_prose(text)} |" for verb, (_, text) in verbs.items())


def _code(text: str) -> str:
    return f"```sh\n{text}\n```\n"


def _prose(text: str) -> str:
    for character in "\\<*":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def verbs_page() -> str:
    found = pages()
    top = [
        "# Verbs\n",
        "Made from the program by `make docs`: change the help text, not this page. The same texts are in",
        "`machine help VERB`, and in a man page for each verb: `man machine-create`.\n",
        "| verb | |\n|---|---|",
        *_index(),
        "\n## Before the verb\n",
        _code(root_page().usage),
        *("\n".join(f"- `{names}`: {_prose(text)}" for names, text in root_page().options["Options"]),),
        "\n## Exit codes\n",
        "| code | |\n|---|---|",
        *(f"| {code} | {text} |" for code, text in EXIT_CODES),
        "\n`ssh`, `scp` and `mount` end with the exit code of the tool that they run.\n",
        "## Environment variables\n",
        "| variable | |\n|---|---|",
        *(f"| `{name}` | {_prose(text)} |" for name, text in variables()),
        "",
    ]
    lines = [line for page in found for line in markdown(page)]
    return "\n".join([*top, *lines]).rstrip() + "\n"
