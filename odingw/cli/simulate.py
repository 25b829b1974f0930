"""``odingw simulate``."""

import signal
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

import click
import requests
from rich.progress import BarColumn, Progress, TextColumn

from odingw.cli.keys import read_access_key
from odingw.cli.options import (
    DEFAULT_INTERNAL,
    INTERNAL_VARIABLE,
    Address,
    Duration,
    Url,
    access_key_options,
    address,
    epilog,
    json_option,
    tls_options,
    url_option,
)
from odingw.cli.output import Failed, emit, ended_by
from odingw.cli.reactor import in_reactor
from odingw.cli.signals import ENDING
from odingw.cli.simulation import Plan, Run
from odingw.cli.state import open_session, unreachable
from odingw.cli.tables import cell, console, show, table
from odingw.errors import OdingwError

_REACH: Final = 10.0


class _Format(click.ParamType[str]):
    """A text with one ``{}`` for a number."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            usable = text.format(1) != text.format(2)
        except (LookupError, ValueError, AttributeError):
            usable = False
        if not usable:
            self.fail(f"{text!r} needs one {{}} for the server's number", param, ctx)
        return text


_COUNT: Final = click.IntRange(1)
_RATE: Final = click.FloatRange(0, 1_000_000)


@click.command(
    epilog=epilog(
        "odingw simulate --access-key-file acme.key --rate 200 --duration 1m",
        "odingw simulate --servers 20 --rate 0 --duration 1h      # servers alone",
        "odingw simulate --access-key-file acme.key --json | jq .latency.p99",
    )
)
@url_option
@click.option(
    "--internal",
    "internal_url",
    type=Url(),
    envvar=INTERNAL_VARIABLE,
    show_envvar=True,
    help=f"The server API. Default: /internal at --url, or {DEFAULT_INTERNAL} if --url is not "
    "given.",
)
@click.option(
    "--servers", type=_COUNT, default=3, show_default=True, help="Simulated ODIN servers."
)
@click.option(
    "--capacity",
    metavar="PEERS",
    type=_COUNT,
    default=500,
    show_default=True,
    help="Peers at which a server is full.",
)
@click.option(
    "--address-format",
    metavar="FORMAT",
    type=_Format(),
    default="sfu-{}.sim:4433",
    show_default=True,
    help="Addresses of the servers; {} is a number.",
)
@click.option("--rate", type=_RATE, default=10.0, show_default=True, help="Clients per second.")
@click.option(
    "--rooms", type=_COUNT, default=100, show_default=True, help="Rooms that clients choose from."
)
@click.option(
    "--stay", type=Duration(0.001), default="1m", show_default=True, help="A client's mean stay."
)
@click.option(
    "--duration",
    "-d",
    "length",
    type=Duration(0.001),
    default="30s",
    show_default=True,
    help="How long clients arrive; with --rate 0, how long servers report.",
)
@click.option(
    "--spread",
    type=Duration(),
    default="2s",
    show_default=True,
    help="The servers start, and so report, spread over this time.",
)
@click.option("--keep-alive", is_flag=True, help="Clients share connections; real ones do not.")
@click.option("--seed", metavar="N", type=int, help="Seed of the random numbers, to repeat a run.")
@access_key_options
@tls_options
@json_option
def simulate(
    access_key: str | None,
    verify: bool | str,
    url: str,
    internal_url: str | None,
    servers: int,
    capacity: int,
    address_format: str,
    rate: float,
    rooms: int,
    stay: float,
    length: float,
    spread: float,
    keep_alive: bool,
    seed: int | None,
    as_json: bool,
) -> None:
    """Put simulated servers and clients on a gateway, and measure.

    Servers get their settings from /internal and report. Clients arrive at a fixed rate, with
    tokens made with the access key, and join the server that the gateway names. A user and
    password for /internal go into its URL; prefer ODINGW_INTERNAL for that.

    The gateway would send real clients to the simulated servers too: never do this to a gateway
    in use.

    Ctrl-C ends it early, with the summary. Status 1 if the servers could not start, no client
    came, no call was granted, or the gateway broke the wire reference.
    """
    plan = Plan(
        servers=[address_format.format(number + 1) for number in range(servers)],
        capacity=capacity,
        duration=length,
        spread=spread,
        rooms=[f"room-{number + 1}" for number in range(rooms)],
        rate=rate,
        stay=stay,
        persistent=keep_alive,
        seed=seed,
    )
    key = read_access_key(access_key) if rate else None
    place = address(url, None, _REACH, verify)
    server_api = address(_servers_url(internal_url, url), None, _REACH, verify)
    _reach(place)
    _reach(server_api)
    with _bar() as progress:
        run = Run(place.url, _with_user(server_api), plan, key, progress, verify)
        try:
            in_reactor(run.work)
        except (OdingwError, ValueError) as error:
            raise Failed(f"the servers could not start: {error}") from None
    summary = run.summary()
    if as_json:
        emit(summary)
    else:
        _print(summary)
    if run.misbehaviours:
        raise Failed(f"the gateway broke the wire reference {run.misbehaviours} times")
    if run.interrupted:
        click.get_current_context().exit(ended_by(ENDING.received or signal.SIGINT))
    clients = summary["clients"]
    if clients is not None and not clients["calls"]:
        raise Failed("no client came; try a longer --duration or a higher --rate")
    if clients is not None and not clients["granted"]:
        raise Failed("no call was granted")


def _servers_url(internal: str | None, url: str) -> str:
    """Return the URL to which the servers add ``internal``."""
    if internal is None:
        source = click.get_current_context().get_parameter_source("url")
        if source is not click.core.ParameterSource.DEFAULT:
            return url
        internal = DEFAULT_INTERNAL
    head, slash, last = internal.rpartition("/")
    if urlsplit(internal).path.strip("/") and last != "internal":
        raise click.BadParameter(f"{internal} does not end with /internal", param_hint="--internal")
    return head + slash if last == "internal" else internal


def _reach(place: Address) -> None:
    """Look whether anybody is there, for servers would try for minutes."""
    with open_session(place) as session:
        try:
            session.get(urljoin(place.url, "/ping"), timeout=place.timeout)
        except requests.RequestException as error:
            raise unreachable(place.url, error) from None


def _with_user(place: Address) -> str:
    if place.auth is None:
        return place.url
    user, password = (quote(text, safe="") for text in place.auth)
    parts = urlsplit(place.url)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()


def _bar() -> Progress:
    """A progress bar on standard error, if that is a terminal."""
    out = console(err=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
        TextColumn("{task.fields[seen]}"),
        console=out,
        auto_refresh=False,
        disable=not out.is_terminal,
    )


def _print(summary: dict[str, Any]) -> None:
    servers, clients, latency = (summary[name] for name in ("servers", "clients", "latency"))
    rows = table("SERVERS", ">RUNNING", ">ROOMS", ">REPORTS", ">TASKS", ">LOAD")
    load = f"{servers['load_min']:.0%} to {servers['load_max']:.0%}"
    counts = (servers[name] for name in ("total", "running", "rooms", "reports", "tasks"))
    rows.add_row(*map(cell, counts), cell(load))
    if clients is None:
        show(rows)
        return
    tables = [rows]
    rows = table("CALLS", ">PER S", ">GRANTED", ">REFUSED", ">NO REPLY", ">JOINED", ">THROWN OUT")
    rows.add_row(
        cell(clients["calls"]),
        cell(f"{clients['calls'] / max(summary['duration'], 0.001):.1f}"),
        cell(clients["granted"], "green"),
        cell(sum(clients["refused"].values())),
        cell(clients["unreachable"]),
        cell(clients["joined"]),
        cell(clients["thrown_out"]),
    )
    tables.append(rows)
    for title, reasons in (
        ("REFUSED BECAUSE", clients["refused"]),
        ("NOT LET IN BECAUSE", clients["join_failures"]),
    ):
        if reasons:
            rows = table(title, ">COUNT")
            for reason, count in reasons.items():
                rows.add_row(cell(reason), cell(count))
            tables.append(rows)
    if latency is not None:
        rows = table("LATENCY", *(f">{name}" for name in latency))
        rows.add_row("ms", *(f"{1000 * value:.2f}" for value in latency.values()))
        tables.append(rows)
    show(*tables)
