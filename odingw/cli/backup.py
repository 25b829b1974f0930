"""``odingw backup`` and ``restore``: what a gateway must not forget, in one file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odingw.cli.options import epilog, json_option
from odingw.cli.output import Failed, emit
from odingw.cli.tables import facts, show
from odingw.errors import ConfigError

if TYPE_CHECKING:
    from odingw.config import State


def _arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    for parameter in (
        json_option,
        click.option(
            "--state",
            metavar="URL",
            help="Where the state is, instead of state.url, such as sqlite:odingw.sqlite.",
        ),
        click.option(
            "--config",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="The configuration of the gateways (TOML).",
        ),
        click.argument("file", type=click.Path(dir_okay=False, path_type=Path)),
    ):
        command = parameter(command)
    return command


@click.command(
    epilog=epilog(
        "odingw backup --config odingw.toml monday.sqlite",
        "odingw backup --state sqlite:/var/lib/odingw/odingw.sqlite monday.sqlite",
    )
)
@_arguments
def backup(file: Path, config: Path | None, state: str | None, as_json: bool) -> None:
    """Copy the state to a file while gateways use it.

    FILE is new, and holds bans, drains, queued tasks, rooms and servers as they are at one
    moment; no keys. A gateway on this machine that uses the journal makes the copy, and is not
    held up by that; where none runs, the journal is copied as it is. Without --config and
    --state, the journal is odingw.sqlite where a gateway that is started here keeps it.
    """
    from odingw import stores

    count = _do(stores.back_up, _state(config, state), file)
    _tell({"file": str(file), "records": count}, as_json)


@click.command(
    epilog=epilog(
        "odingw restore --config odingw.toml monday.sqlite",
        "odingw restore --state sqlite:/var/lib/odingw/odingw.sqlite monday.sqlite",
    )
)
@_arguments
def restore(file: Path, config: Path | None, state: str | None, as_json: bool) -> None:
    """Put a backup in the place of the state.

    FILE is one that "odingw backup" has made. No gateway may use the state meanwhile. What was
    there is kept beside, under a name that ends in the time.
    """
    from odingw import stores

    section = _state(config, state)
    count, moved = _do(stores.restore, section, file)
    where = section.address.place
    kept = None if moved is None else str(moved)
    _tell({"state": where, "records": count, "before": kept}, as_json)


def _do(work: Callable[..., Any], *args: Any) -> Any:
    try:
        return work(*args)
    except ConfigError as error:
        raise Failed(str(error)) from None


def _state(config: Path | None, url: str | None) -> "State":
    """Return the section ``[state]`` that counts."""
    # Twisted, which takes a while to load.
    from odingw.options import Options

    options = Options()
    options["config"] = None if config is None else str(config)
    options["state"] = url
    return _do(options.load).state  # type: ignore[no-any-return]  # of a Config


def _tell(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(document)
    else:
        show(facts({name: value for name, value in document.items() if value is not None}))
