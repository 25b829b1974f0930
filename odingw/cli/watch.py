"""``odingw top`` and ``where``."""

import time
from collections.abc import Iterator

import click
import msgspec
from rich.live import Live

from odingw.cli.dashboard import FEW, SORTS, Rates, View, dashboard, state_word
from odingw.cli.keyboard import Keyboard
from odingw.cli.options import Address, Duration, admin_options, epilog, json_option
from odingw.cli.output import UNREACHABLE, Failed, emit
from odingw.cli.signals import ENDING, LEAVE_SCREEN
from odingw.cli.state import Room, complete_rooms, open_session, snapshot, summary
from odingw.cli.tables import cell, console, duration, show, table
from odingw.grid.rooms import base_of


@click.command(
    epilog=epilog(
        "odingw top",
        "odingw top --admin https://gateway.example:7001 --user ops --interval 1s",
        "odingw top --once --sort peers",
        "odingw top --json | jq '.pools[].servers[] | select(.disabled) | .address'",
    )
)
@click.option(
    "--interval",
    "-i",
    type=Duration(0.1),
    default="2s",
    show_default=True,
    help="Time between two updates.",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default=SORTS[0],
    show_default=True,
    help="What servers are sorted by, highest first.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print once and exit. This is the default when there is no terminal.",
)
@admin_options
@json_option
def top(admin: Address, interval: float, sort: str, once: bool, as_json: bool) -> None:
    """Watch servers, load, rooms and rates.

    Keys: s sorts by something else, q quits. When the gateway is away, top waits for it. With
    --json it prints the gateway's state once, as the admin endpoint's /monitor/state has it.
    """
    out = console()
    if once or as_json or not out.is_terminal or out.is_dumb_terminal:
        with open_session(admin) as session:
            shot = snapshot(admin, session) if as_json else summary(admin, session, FEW)
        if as_json:
            emit(shot.document)
        else:
            view = View(admin.url, shot, Rates(), sort=sort)
            show(dashboard(view))
        return
    ENDING.restoring = LEAVE_SCREEN + ENDING.restoring
    _watch(admin, interval, sort)


def _watch(admin: Address, interval: float, sort: str) -> None:
    view = View(admin.url, None, Rates(), sort=sort, live=True)
    with (
        open_session(admin) as session,
        Keyboard() as keyboard,
        Live(console=console(), screen=True, auto_refresh=False) as live,
    ):
        while True:
            try:
                shot = summary(admin, session, FEW)
            except Failed as error:
                if error.status != UNREACHABLE and view.shot is None:
                    raise
                view.away(error.message)
            else:
                view.take(shot)
            due = time.monotonic() + interval
            while (left := due - time.monotonic()) > 0:
                view.size = live.console.size
                live.update(dashboard(view), refresh=True)
                for key in keyboard.wait(left):
                    if key == "q":
                        return
                    if key == "s":
                        view.sort_by_next()


@click.command(
    epilog=epilog(
        "odingw where lobby",
        "odingw where lobby --namespace acme --json | jq -r '.rooms[].server'",
    )
)
@click.argument("room", shell_complete=complete_rooms)
@click.option("--namespace", metavar="NAME", help="Rooms of this namespace only.")
@click.option("--pool", metavar="NAME", help="Rooms of this pool only.")
@admin_options
@json_option
def where(
    admin: Address, room: str, namespace: str | None, pool: str | None, as_json: bool
) -> None:
    """Show which server carries a room.

    Rooms of one base ("{base}1", "{base}2") are on one server, so all of them are shown. Status 1
    if there are none.
    """
    with open_session(admin) as session:
        shot = snapshot(admin, session)
    base = base_of(room)
    found = [
        (name, one)
        for name, grid in shot.state.pools.items()
        if pool in (None, name)
        for one in grid.rooms
        if base_of(one.id[1]) == base and namespace in (None, one.id[0])
    ]
    states = {one.address: one.state for one in shot.state.all_servers()}
    if as_json:
        rooms = list(_documents(found, states))
        emit({"room": room, "rooms": rooms})
    elif found:
        rows = table("ROOM", "NAMESPACE", "POOL", "SERVER", "STATE", ">PEERS", ">EXPECTED", ">SEEN")
        for name, one in sorted(found, key=lambda item: (item[0], item[1].id)):
            seen = duration(shot.now - one.updated) if one.reported and one.updated else "-"
            rows.add_row(
                cell(one.id[1]),
                cell(one.id[0]),
                cell(name or "-"),
                cell(one.server),
                cell(state_word(states.get(one.server, "gone"))),
                cell(one.peers),
                cell(one.reservations),
                cell(seen),
            )
        show(rows)
    if not found:
        raise Failed(f"room {room!r} is on no server")


def _documents(
    found: list[tuple[str, Room]], states: dict[str, str]
) -> Iterator[dict[str, object]]:
    for pool, room in found:
        document: dict[str, object] = msgspec.to_builtins(room)
        namespace, name = room.id
        yield {
            "name": name,
            "namespace": namespace,
            "pool": pool,
            "server_state": states.get(room.server),
        } | {key: value for key, value in document.items() if key != "id"}
