"""machine completion: click's own for bash, zsh and fish, ours for PowerShell; and which words are machines.

A shell's script runs `machine` again with the command line so far in the environment; it prints what may come next.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from machine.cli.verbs import COMPLETING

SHELLS = ("bash", "zsh", "fish", "powershell")
# What an argument holds is told by its name, which all verbs spell alike.
_MACHINES = {"name", "machines"}
_PLACES = {"source", "target"}


class MachineName(click.ParamType[str]):
    """The name of a machine of the store; after is what follows it."""

    name = "machine"

    def __init__(self, after: str = "") -> None:
        self.after = after

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from machine import store

        given = ctx.params.get(param.name or "") or ()
        names = [name for name in store.names() if name.startswith(incomplete) and name not in given]
        return [CompletionItem(f"{name}{self.after}") for name in names]


class Choices(click.ParamType[str]):
    name = "choice"

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


def tell_types(verb: str, command: click.Command) -> None:
    """Give the parameters of a verb the types that know how to complete them."""
    from machine import registry, shells

    for parameter in command.params:
        if isinstance(parameter, click.Option):
            if parameter.name == "driver":
                parameter.type = Choices(registry.creatable())
            elif parameter.name == "shell":
                parameter.type = Choices(list(shells.SHELLS))
        elif parameter.name in _MACHINES and verb != "create":
            parameter.type = MachineName()
        elif parameter.name in _PLACES and verb in {"scp", "mount"}:
            parameter.type = MachineName(":")
    for name, nested in command.commands.items() if isinstance(command, click.Group) else ():
        tell_types(f"{verb} {name}", nested)


class PowerShell(ShellComplete):
    """Words come one a line, because PowerShell joins a command's words with blanks."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -le $cursorPosition } |
        ForEach-Object { if ($_ -is [Management.Automation.Language.StringConstantExpressionAst]) { $_.Value }
            else { $_.ToString() } })
    if ($wordToComplete -and $words.Count -gt 1) { $words = $words[0..($words.Count - 2)] }
    $env:COMP_WORDS = $words -join "`n"
    $env:COMP_WORD = $wordToComplete
    $env:%(complete_var)s = "powershell_complete"
    try {
        %(prog_name)s | ForEach-Object {
            $value, $text = $_ -split "`t", 2
            [Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", $text)
        }
    } finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_WORD, Env:%(complete_var)s -ErrorAction Ignore
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        return os.environ["COMP_WORDS"].split("\n")[1:], os.environ.get("COMP_WORD", "")

    def format_completion(self, item: CompletionItem) -> str:
        text = " ".join((item.help or "").split()) or item.value
        return f"{item.value}\t{text}" if item.type == "plain" else ""


add_completion_class(PowerShell)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes verbs, options and machines' names in a shell.

    \b
    bash        source <(machine completion bash)
    zsh         source <(machine completion zsh)
    fish        machine completion fish | source
    powershell  machine completion powershell | Out-String | Invoke-Expression
    """
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(ctx.find_root().command, {}, "machine", COMPLETING).source())
