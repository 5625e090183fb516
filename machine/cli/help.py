"""machine help: a verb's help, and examples."""

from __future__ import annotations

import click

from machine.cli.examples import EXAMPLES
from machine.errors import Usage


@click.command()
@click.argument("words", metavar="[VERB]...", nargs=-1)
@click.pass_context
def help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print what a verb does, its options, and examples."""
    root = ctx.find_root()
    print(_found(root, words).get_help())
    if examples := EXAMPLES.get(" ".join(words[:1]), ()):
        print("\nExamples:")
        for command, text in examples:
            print(f"  # {text}\n  {command}")


def _found(root: click.Context, words: tuple[str, ...]) -> click.Context:
    ctx = root
    for word in words:
        command = ctx.command.get_command(ctx, word) if isinstance(ctx.command, click.Group) else None
        if command is None:
            raise Usage(f'there is no verb "{" ".join(words)}"', hint="machine help")
        ctx = click.Context(command, info_name=word, parent=ctx)
    return ctx
