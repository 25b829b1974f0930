"""Tables for people, by rich: on a terminal as wide as that, elsewhere as wide as they are."""

import sys
from typing import Final

import click
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from odingw.cli.output import plain

_UNLIMITED: Final = 10_000
"""Columns: nobody's pipe is a terminal, and nothing that a script reads is to be cut off."""


def console(*, err: bool = False) -> Console:
    """Return a console for standard output or standard error.

    Colour is for terminals alone, and not where NO_COLOR is set. Text is printed as it is.
    """
    stream = sys.stderr if err else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _UNLIMITED,
        markup=False,
        highlight=False,
        emoji=False,
    )


def show(*contents: RenderableType) -> None:
    """Print to standard output, with an empty line in between."""
    out = console()
    for number, content in enumerate(contents):
        with out.capture() as captured:
            out.print(content)
        # Tables fill their last column with spaces.
        lines = [line.rstrip() for line in captured.get().splitlines()]
        click.echo("\n".join([""] * bool(number) + lines), color=True)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table.

    Args:
        columns: their headings; ``>`` in front of one sets it to the right, for numbers, and ``!``
            keeps its cells on one line.
        title: a heading of the whole.
    """
    return Table(
        *(_column(text) for text in columns),
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )


def _column(text: str) -> Column:
    name = text.lstrip(">!")
    return Column(
        name, justify="right" if ">" in text else "left", no_wrap="!" in text or ">" in text
    )


def cell(value: object, style: str = "") -> Text:
    """Return a table's cell with text from outside."""
    return Text(plain(value), style=style)


def facts(pairs: dict[str, object]) -> Table:
    """Return names and values, one pair a line; values of None are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            grid.add_row(name, value if isinstance(value, Text) else cell(value))
    return grid


def duration(seconds: float) -> str:
    """Return a time as people write it: ``4s``, ``12m``, ``3h05m``, ``2d04h``."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole}s"
    minutes, _ = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02}m"
    return f"{hours // 24}d{hours % 24:02}h"
