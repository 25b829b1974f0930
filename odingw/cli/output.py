"""What every command does alike: exit status, errors on one line, JSON for scripts, plain text."""

import json
import os
import sys
from typing import Any, BinaryIO, Final

import click

from odingw.escapes import in_json, in_text

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130
TERMINATED: Final = 143

STATUS: Final = {
    OK: "all is well",
    REFUSED: "refused by the gateway, not found, or a check failed",
    USAGE: "wrong usage",
    UNREACHABLE: "the gateway cannot be reached",
    INTERRUPTED: "interrupted with Ctrl-C",
    TERMINATED: "ended by SIGTERM",
}
"""The exit status of every command."""


def ended_by(number: int) -> int:
    """Return the exit status of a command that a signal has ended, as shells have it."""
    return 128 + number


class Failed(click.ClickException):
    """A command cannot do what it was asked to.

    Args:
        message: one line for people.
        status: the exit status.

    Attributes:
        status: as given.
    """

    def __init__(self, message: str, status: int = REFUSED) -> None:
        super().__init__(plain(message))
        self.status = status


def plain(text: object) -> str:
    """Return text that no terminal takes for a command: what cannot be printed is escaped.

    Names of rooms and servers come from outside.
    """
    return in_text(str(text))


def json_text(document: Any) -> str:
    """Return JSON that no terminal takes for a command."""
    return in_json(json.dumps(document, indent=2, ensure_ascii=False))


def emit(document: Any) -> None:
    """Print the one JSON document of a ``--json``."""
    click.echo(json_text(document))


def complain(message: str) -> None:
    """Print one line to standard error."""
    click.echo(f"odingw: {plain(message)}", err=True)


def one_line(error: click.ClickException) -> str:
    """Return what a wrong usage is, and where to read on."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text} (see {context.command_path} --help)" if context else text


def standard_input() -> BinaryIO:
    """Return standard input.

    Raises:
        UsageError: there is none.
    """
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return sys.stdin.buffer


def hush() -> None:
    """Say nothing more to a reader that has gone: the interpreter flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
