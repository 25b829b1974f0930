"""The options of ``twistd odingw``, and the ``odingw`` command with all its commands."""

from collections.abc import Iterator
from copy import copy
from inspect import cleandoc
from typing import Any, Final

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from odingw.cli import main
from odingw.options import Options

_VALUES: Final = {
    "certificate": "FILE",
    "config": "FILE",
    "masterkey": "KEY",
    "privatekey": "FILE",
    "state": "URL",
    "turn-config": "FILE",
}
"""What twistd's options take, where that is not what their names say."""


def _whole(group: click.Group) -> click.Group:
    """Return a group that holds its commands: sphinx-click does not load lazy ones."""
    whole = copy(group)
    with click.Context(group) as context:
        found = ((name, group.get_command(context, name)) for name in group.list_commands(context))
        whole.commands = {name: command for name, command in found if command is not None}
    return whole


odingw: Final = _whole(main.odingw)


def options() -> Iterator[tuple[str, str]]:
    """Yield each option, with its value if it takes one, and what it does."""
    rows: tuple[Any, ...] = (*Options.optFlags, *Options.optParameters)
    for long, short, *_, text in rows[: len(Options.optFlags)]:
        yield _names(long, short, ""), text
    for long, short, *_, text in rows[len(Options.optFlags) :]:
        yield _names(long, short, _VALUES.get(long, long.upper())), text
    for name, method in sorted(vars(Options).items()):
        if name.startswith("opt_"):
            long = name.removeprefix("opt_").replace("_", "-")
            takes_value = method.__code__.co_argcount > 1
            value = method.__code__.co_varnames[1].upper() if takes_value else ""
            yield _names(long, None, value), cleandoc(method.__doc__ or "")


def _names(long: str, short: str | None, value: str) -> str:
    names = [f"--{long} {value}".rstrip()]
    if short:
        names.insert(0, f"-{short} {value}".rstrip())
    return ", ".join(names)


class TwistdOptions(SphinxDirective):
    """The list of options."""

    def run(self) -> list[nodes.Node]:
        """Return the list."""
        lines = [".. program:: twistd odingw", ""]
        for names, text in options():
            lines += [f".. option:: {names}", "", f"   {text.rstrip('.')}.", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("twistd-options", TwistdOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
