"""``odingw completion``."""

import click
from click.shell_completion import get_completion_class

from odingw.cli.options import epilog

_VARIABLE = "_ODINGW_COMPLETE"


@click.command(
    epilog=epilog(
        'eval "$(odingw completion bash)"    # in ~/.bashrc',
        'eval "$(odingw completion zsh)"     # in ~/.zshrc',
        "odingw completion fish > ~/.config/fish/completions/odingw.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    It completes commands, options and files, and the names of servers and rooms that the admin
    endpoint knows.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click cannot complete in {shell}")
    click.echo(kind(context.find_root().command, {}, "odingw", _VARIABLE).source())
