"""``odingw run``."""

import os
import sys

import click

from odingw.cli.options import epilog
from odingw.sim.child import gateway_command, gateway_environment


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=epilog(
        "odingw run",
        "odingw run --config odingw.toml",
        "odingw run --port 8000 --verbose",
    ),
)
@click.option(
    "--config",
    metavar="FILE",
    # Whether it is there, the gateway says.
    type=click.Path(),
    help='The configuration (TOML); this and all other options are those of "twistd odingw".',
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(config: str | None, options: tuple[str, ...]) -> None:
    """Run a gateway in the foreground.

    This is "twistd -n --pidfile= odingw" with OPTIONS, which "twistd odingw --help" explains:
    until Ctrl-C or SIGTERM, with the log on standard output, and without a file for the process
    id. The exit status is twistd's.
    """
    given = options if config is None else ("--config", config, *options)
    command = gateway_command(*given)
    sys.stdout.flush()
    # The same process, so that signals and a service manager reach the gateway itself.
    os.execve(command[0], command, gateway_environment())  # noqa: S606  -- no shell is wanted
