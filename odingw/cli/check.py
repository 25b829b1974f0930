"""``odingw check`` and ``customers``: what is wrong before a gateway says so."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click
import requests

from odingw.cli.options import Duration, Url, address, epilog, json_option, tls_options
from odingw.cli.output import Failed, complain, emit, standard_input
from odingw.cli.state import open_session, unreachable
from odingw.cli.tables import cell, facts, show, table
from odingw.config import Config
from odingw.config.place import internal_endpoints
from odingw.customers import Directory, SourceError, directory
from odingw.customers.sources import MAX_BYTES, decoded
from odingw.errors import ConfigError
from odingw.files import read_file

if TYPE_CHECKING:
    from odingw.tap import Checked

_SECONDS: Final = "10s"


@click.command(
    epilog=epilog(
        "odingw check /etc/odingw/odingw.toml && systemctl reload odingw",
        "odingw check --turn-config turnrest.json",
    )
)
@click.argument(
    "config",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=lambda *_: [click.shell_completion.CompletionItem("", type="file")],
)
@click.option(
    "--turn-config",
    metavar="FILE",
    type=click.Path(),
    help="A TurnRest configuration (JSON), instead of [turn].",
)
@json_option
def check(config: Path | None, turn_config: str | None, as_json: bool) -> None:
    """Check a configuration.

    Checks all that a start checks in CONFIG (TOML), also certificates, TURN settings and the
    place of the state, but does not listen. Status 1 if the gateway would not start. Warnings go
    to standard error. Without CONFIG, the built-in configuration is checked.
    """
    try:
        checked = _load(config, turn_config)
    except ConfigError as error:
        if as_json:
            emit({"good": False, "error": str(error), "warnings": []})
        raise Failed(str(error)) from None
    found = checked.config
    warnings = checked.warnings
    for warning in warnings:
        complain(f"warning: {warning}")
    summary = _summary(found) | {"master_key": checked.keys.where}
    if as_json:
        emit({"good": True, "warnings": warnings} | summary)
        return
    show(
        facts({name: _words(value) for name, value in summary.items()} | {"configuration": "good"})
    )


def _words(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) or "nowhere" if isinstance(value, list) else value


def _load(path: Path | None, turn_config: str | None) -> "Checked":
    # Twisted, which takes a while to load.
    from odingw import tap
    from odingw.options import Options

    options = Options()
    options["config"] = None if path is None else str(path)
    options["turn-config"] = turn_config
    # Warnings about the configuration are logged; they belong to standard error, not into JSON.
    with contextlib.redirect_stdout(sys.stderr):
        return tap.check(options)


def _summary(config: Config) -> dict[str, Any]:
    listen, gateway = config.listen, config.gateway
    source = gateway.customer_source
    return {
        "public": list(listen.public),
        "internal": list(internal_endpoints(config)),
        "admin": list(listen.admin),
        "state": config.state.url.partition(":")[0],
        "state_file": _state_file(config.state.url),
        "customers": len(gateway.customers),
        "customer_source": source is not None,
        "turn": config.turn is not None,
    }


def _state_file(url: str) -> str | None:
    """Return where a ``sqlite:`` state is; other URLs may hold passwords."""
    scheme, _, path = url.partition(":")
    # As the start does, from the working directory.
    return str(Path(path).absolute()) if scheme == "sqlite" else None


@click.command(
    epilog=epilog(
        "odingw customers customers.json",
        "odingw customers https://backend.example/customers --json",
        "generate-customers | odingw customers -",
    )
)
@click.argument("source", metavar="FILE|URL|-")
@click.option(
    "--timeout", type=Duration(0.001), default=_SECONDS, show_default=True, help="Of a URL."
)
@tls_options
@json_option
def customers(source: str, timeout: float, verify: bool | str, as_json: bool) -> None:
    """Check a list of customers.

    Reads it as gateway.customer_source does, and shows the customers and keys that the gateway
    would take from it. Status 1 if anything would be left out, with a line for each on standard
    error.
    """
    name, data = _read(source, timeout, verify)
    try:
        documents = decoded(data)
    except SourceError as error:
        raise Failed(f"{name}: {error}") from None
    found = directory(documents)
    if as_json:
        emit(_document(found))
    else:
        _print(found)
    for problem in found.problems:
        complain(f"{name}: {problem}")
    if found.problems:
        click.get_current_context().exit(1)


def _read(source: str, timeout: float, verify: bool | str) -> tuple[str, bytes]:
    """Return what to call a source, and what it holds."""
    if source.startswith(("http://", "https://")):
        place = address(Url().convert(source, None, None), None, timeout, verify)
        bare = urlsplit(place.url)._replace(query="", fragment="").geturl()
        with open_session(place) as session:
            try:
                response = session.get(place.url, timeout=timeout)
                data = response.content
            except requests.RequestException as error:
                raise unreachable(bare, error) from None
        if response.status_code != 200:
            raise Failed(f"{bare}: HTTP status {response.status_code}")
    elif source == "-":
        bare, data = "standard input", standard_input().read(MAX_BYTES + 1)
    else:
        bare = source
        try:
            data = read_file(Path(source), max_bytes=MAX_BYTES)
        except OSError as error:
            raise Failed(f"{source}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Failed(f"{bare}: it is larger than {MAX_BYTES} bytes")
    return bare, data


def _document(found: Directory) -> dict[str, Any]:
    return {
        "good": not found.problems,
        "problems": list(found.problems),
        "customers": [
            {
                "id": one.id,
                "max_peers": one.max_peers,
                "max_rooms": one.max_rooms,
                "access_keys": [
                    {"kid": key.kid, "namespace": key.namespace}
                    for key in found.keys.values()
                    if key.customer is one
                ],
            }
            for one in found.customers.values()
        ],
    }


def _print(found: Directory) -> None:
    rows = table("CUSTOMER", ">MAX PEERS", ">MAX ROOMS", "ACCESS KEY", "NAMESPACE")
    for one in found.customers.values():
        limits = [
            "no limit" if limit is None else str(limit) for limit in (one.max_peers, one.max_rooms)
        ]
        keys = [key for key in found.keys.values() if key.customer is one]
        for key in keys:
            rows.add_row(cell(one.id), *map(cell, limits), cell(key.kid), cell(key.namespace))
        if not keys:
            rows.add_row(cell(one.id), *map(cell, limits), cell("none", "yellow"), cell("-"))
    show(rows)
