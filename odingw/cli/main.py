"""The command itself: which commands there are, and how they end."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from odingw import __version__
from odingw.cli.options import epilog
from odingw.cli.output import REFUSED, USAGE, Failed, complain, ended_by, hush, one_line
from odingw.cli.signals import ENDING

SECTIONS: Final = {
    "Run": {
        "run": ("run:run", "Run a gateway in the foreground."),
        "demo": ("demo:demo", "Run a gateway with simulated servers and clients on this machine."),
    },
    "Keys and tokens": {
        "access-key": ("keys:access_key", "Make and inspect access keys."),
        "token": ("keys:token", "Make a client token."),
        "decode": ("keys:decode", "Show what a token says."),
    },
    "Look": {
        "top": ("watch:top", "Watch servers, load, rooms and rates."),
        "where": ("watch:where", "Show which server carries a room."),
    },
    "Act": {
        "call": ("calls:call", "Call a method of a gateway."),
        "drain": ("calls:drain", "Let a server take no new rooms."),
        "undrain": ("calls:undrain", "Let a server take new rooms again."),
        "disable": (
            "calls:disable",
            "Take a server for dead, so that its rooms move at their next Connect.",
        ),
        "unban": ("calls:unban", "Lift the ban of a room or a user."),
    },
    "Keep": {
        "backup": ("backup:backup", "Copy the state to a file while gateways use it."),
        "restore": ("backup:restore", "Put a backup in the place of the state."),
    },
    "Test": {
        "check": ("check:check", "Check a configuration."),
        "customers": ("check:customers", "Check a list of customers."),
        "turn-test": ("turn_test:turn_test", "Prove TURN credentials at the servers themselves."),
        "simulate": (
            "simulate:simulate",
            "Put simulated servers and clients on a gateway, and measure.",
        ),
    },
    "Set up": {
        "completion": ("completion:completion", "Print a shell's completion script."),
    },
}
"""All commands: where they are, and what they do in one line, which is their help's first."""


class Sections(click.Group):
    """A group whose commands are loaded when they are called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places: dict[str, str] = {}
        for commands in SECTIONS.values():
            for name, (place, line) in commands.items():
                self._places[name] = place
                # Stands for the command where its name and line are enough.
                self.commands[name] = click.Command(name, short_help=line)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; that nobody reads its output any more is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            hush()
            return 0

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the sections."""
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"odingw.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section."""
        widest = max(map(len, self._places))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(name.ljust(widest), line) for name, (_, line) in commands.items()]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without loading any."""
        found = [
            CompletionItem(name, help=command.short_help)
            for name, command in self.commands.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(
        "odingw access-key new --customer acme",
        "odingw demo",
        "odingw top --admin http://gateway.example:7001",
        "ODINGW_ACCESS_KEY_FILE=acme.key odingw call Connect --room lobby --user alice",
    ),
)
@click.version_option(
    __version__, "-V", "--version", prog_name="odingw", message="%(prog)s %(version)s"
)
def odingw() -> None:
    """Operate odingw: an ODIN voice gateway and TURN REST server.

    The gateway itself is started with "odingw run" or, as a daemon, "twistd odingw"; "odingw
    demo" shows one at work.

    Where a gateway is, and the keys for it, can stand in the environment: ODINGW_URL,
    ODINGW_ADMIN, ODINGW_INTERNAL, ODINGW_ACCESS_KEY, ODINGW_ACCESS_KEY_FILE and others, which
    the help of each command names. With --json a command prints one JSON document, for scripts.
    """


def main() -> NoReturn:
    """Run the command and exit."""
    if sys.stdout is None:
        # Closed by whoever called; what nobody wants goes nowhere.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  -- for as long as the process lives
    ENDING.begin()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is escaped rather than an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # text streams
    ENDING.finish(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    try:
        status = odingw.main(arguments, prog_name="odingw", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.UsageError as error:
        complain(one_line(error))
        return USAGE
    except Failed as error:
        complain(error.message)
        return error.status
    except click.ClickException as error:
        complain(error.format_message())
        return REFUSED
    except (click.Abort, KeyboardInterrupt):
        return ended_by(ENDING.received or signal.SIGINT)
    except OSError as error:
        hush()
        if error.errno == errno.EPIPE:
            return 0
        complain(f"{error.filename or 'cannot write'}: {error.strerror or error}")
        return REFUSED
    return status if isinstance(status, int) else 0
