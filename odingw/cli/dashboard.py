"""What ``odingw top`` shows."""

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, TypeVar

from rich.bar import Bar
from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from odingw.cli.output import plain
from odingw.cli.state import Room, Server, Snapshot, Turn, Usage
from odingw.cli.tables import cell, duration, table

SORTS: Final = ("load", "peers", "rooms", "tasks", "address")

T = TypeVar("T")

_BAR: Final = 8
FEW: Final = 10
"""How many of the less important things are shown, rooms for one."""

_WINDOW: Final = 10.0
"""Seconds over which rates are taken: servers report every 5."""

_WARM: Final = 0.7
_HOT: Final = 0.9
_STYLES: Final = {"ready": "green", "drained": "yellow", "unheard": "yellow", "disabled": "red"}
_WORDS: Final = {"ready": "live"}
"""States that are called otherwise than in the JSON: as on the status page."""

_BRIEF: Final = {"success": "OK", "rejected": "REJECTED", "failure": "FAILED"}


class Rates:
    """Calls per second over the last seconds, from the counts of several looks."""

    def __init__(self) -> None:
        self.per_method: dict[str, float] | None = None
        self._looks: deque[tuple[float, Counter[str]]] = deque()

    @property
    def total(self) -> float | None:
        """Of all methods; None before the second look."""
        return None if self.per_method is None else sum(self.per_method.values())

    def take(self, shot: Snapshot) -> None:
        """Take another look."""
        counts = _methods(shot)
        looks = self._looks
        if looks and any(counts[method] < count for method, count in looks[-1][1].items()):
            # The gateway has started anew and counts from 0.
            looks.clear()
        looks.append((shot.taken, counts))
        # Two looks are needed, however far apart they are.
        while len(looks) > 2 and shot.taken - looks[0][0] > _WINDOW:
            looks.popleft()
        began, before = looks[0]
        seconds = shot.taken - began
        self.per_method = None
        if seconds > 0:
            self.per_method = {
                method: (count - before[method]) / seconds for method, count in counts.items()
            }


def _methods(shot: Snapshot) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (method, _), count in shot.state.calls().items():
        counts[method] += count
    return counts


@dataclass(slots=True)
class View:
    """What is to be shown, and how.

    Attributes:
        url: of the admin endpoint.
        shot: the latest state; None: there is none yet.
        rates: calls per second.
        sort: one of ``SORTS``.
        live: whether it is shown again and again.
        trouble: why the latest look failed; empty: it did not.
        since: when that began, by the monotonic clock.
        size: of the terminal; None: as large as need be.
    """

    url: str
    shot: Snapshot | None
    rates: Rates
    sort: str = SORTS[0]
    live: bool = False
    trouble: str = ""
    since: float = 0.0
    size: ConsoleDimensions | None = None

    def take(self, shot: Snapshot) -> None:
        """Take a state."""
        self.shot = shot
        self.rates.take(shot)
        self.trouble = ""

    def away(self, trouble: str) -> None:
        """Take note that the gateway did not answer."""
        if not self.trouble:
            self.since = time.monotonic()
        self.trouble = trouble

    def sort_by_next(self) -> None:
        """Sort by something else."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]


def dashboard(view: View) -> RenderableType:
    """Return the whole picture; where there is a size, it fits into it."""
    parts: list[RenderableType] = [_title(view)]
    if view.trouble:
        away = duration(time.monotonic() - view.since)
        text = f"unreachable, retrying ({away}): {plain(view.trouble)}"
        parts.append(Text(text, "bold red", no_wrap=True, overflow="ellipsis"))
    if view.shot is None:
        return Group(*parts)
    parts.append(_totals(view, view.shot))
    room = _Space(view.size)
    room.use(len(parts) + 1)
    if view.live:
        room.use(1)
    servers = _ordered(view, view.shot)
    customers = sorted(view.shot.state.limits(), key=lambda one: (-one.peers, one.name))
    methods = view.shot.state.calls()
    rooms = sorted(view.shot.state.all_rooms(), key=lambda one: (-one.peers, one.id))
    # Servers come first, but leave a little to the others.
    reserve = sum(3 for group in (customers, methods) if group)
    parts += ["", _servers(view.shot, room.take(servers, reserve))]
    if methods:
        parts += ["", _calls(view, methods, room)]
    if customers:
        parts += ["", _customers(room.take(customers, 0))]
    turn = view.shot.state.turn
    if turn is not None and turn.enabled and room.fits(2):
        parts += ["", _turn(turn)]
        room.use(2)
    if rooms and room.fits(4):
        parts += ["", _rooms(room.take(rooms, 0, most=FEW))]
    if view.live:
        parts += [Text(f"q quit   s sort (now by {view.sort})", "dim")]
    return Group(*parts)


class _Space:
    """Lines that are left."""

    def __init__(self, size: ConsoleDimensions | None) -> None:
        self._height = self._left = None if size is None else size.height

    def use(self, lines: int) -> None:
        if self._left is not None:
            self._left -= lines

    @property
    def few(self) -> int:
        """How many of the less important things are shown."""
        return FEW if self._height is None else min(FEW, max(3, self._height // 8))

    def fits(self, lines: int) -> bool:
        return self._left is None or self._left >= lines

    def take(self, items: list[T], reserve: int, most: int | None = None) -> list[T]:
        """Return as many items as fit with a heading and an empty line above."""
        if most is not None:
            items = items[:most]
        if self._left is not None:
            items = items[: max(1, self._left - reserve - 2)]
        self.use(len(items) + 2)
        return items


def _title(view: View) -> Text:
    shot = view.shot
    parts = ["odingw"]
    if shot is not None:
        state = shot.state
        if state.version is not None:
            parts[0] += f" {plain(state.version)}"
        if state.uptime is not None:
            parts.append(f"up {duration(state.uptime)}")
        if state.ready is not None:
            parts.append("ready" if state.ready else "NOT READY")
    parts.append(view.url)
    if view.live:
        parts.append(time.strftime("%H:%M:%S"))
    return Text(" · ".join(parts), "bold", no_wrap=True, overflow="ellipsis")


def _totals(view: View, shot: Snapshot) -> Text:
    servers = list(shot.state.all_servers())
    out = Counter(one.state for one in servers if one.state != "ready")
    hint = f" ({', '.join(f'{count} {state}' for state, count in out.items())})" if out else ""
    peers = sum(one.peers for one in servers if not one.disabled)
    expected = sum(one.reservations for one in servers)
    parts = [
        f"{len(servers)} servers{hint}",
        f"{shot.state.count_rooms()} rooms",
        f"{peers} peers, {expected} expected",
    ]
    if view.rates.total is not None:
        parts.append(f"{view.rates.total:.1f} calls/s")
    return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")


def _ordered(view: View, shot: Snapshot) -> list[tuple[str, Server]]:
    pairs = [(name, one) for name, pool in shot.state.pools.items() for one in pool.servers]

    def key(pair: tuple[str, Server]) -> tuple[float, str]:
        server = pair[1]
        value = 0.0 if view.sort == "address" else float(getattr(server, view.sort))
        return -value, server.address

    return sorted(pairs, key=key)


def _servers(shot: Snapshot, pairs: list[tuple[str, Server]]) -> Table:
    pools = len(shot.state.pools) > 1
    heads = ["SERVER", "!STATE", "LOAD", ">", ">EXPECT", ">PEERS", ">ROOMS", ">TASKS", ">SEEN"]
    rows = table(*heads[:1], *(["POOL"] if pools else []), *heads[1:])
    rows.columns[0].no_wrap, rows.columns[0].min_width = True, 12
    for pool, one in pairs:
        style = "dim" if one.disabled else ""
        rows.add_row(
            cell(one.address, style),
            *([cell(pool)] if pools else []),
            cell(state_word(one.state), _STYLES[one.state]),
            Bar(1.0, 0.0, min(1.0, max(0.0, one.load)), width=_BAR, color=_heat(one.load)),
            cell(f"{one.load:.0%}"),
            cell(f"{one.expected_load:.0%}"),
            cell(f"{one.peers}+{one.reservations}" if one.reservations else one.peers),
            cell(one.rooms),
            cell(one.tasks, "yellow" if one.tasks else ""),
            cell(duration(shot.now - one.last_seen) if one.last_seen else "-"),
            style=style,
        )
    if not pairs:
        rows.add_row(cell("none has reported yet", "yellow"))
    return rows


def state_word(state: str) -> str:
    """Return what people read for a server's state."""
    return _WORDS.get(state, state)


def _heat(load: float) -> str:
    return "red" if load >= _HOT else "yellow" if load >= _WARM else "green"


def _calls(view: View, counts: Counter[tuple[str, str]], room: _Space) -> Table:
    per_method = view.rates.per_method
    totals: Counter[str] = Counter()
    for (method, _), count in counts.items():
        totals[method] += count
    methods = [method for method, _ in totals.most_common()]
    if per_method is not None:
        methods.sort(key=lambda method: -per_method.get(method, 0.0))
    rows = table("CALLS", ">PER S", *(f">{head}" for head in _BRIEF.values()))
    for method in room.take(methods, 0, most=room.few):
        rate = "-" if per_method is None else f"{per_method.get(method, 0.0):.1f}"
        rows.add_row(
            cell(method), cell(rate), *(cell(counts[method, outcome]) for outcome in _BRIEF)
        )
    return rows


def _customers(customers: list[Usage]) -> Table:
    rows = table("CUSTOMER", ">PEERS", ">EXPECTED", ">ROOMS")
    for one in customers:
        rows.add_row(
            cell(one.name),
            _of(one.peers, one.max_peers),
            cell(one.reservations),
            _of(one.rooms, one.max_rooms),
        )
    return rows


def _of(used: int, limit: int | None) -> Text:
    if limit is None:
        return cell(used)
    return cell(f"{used}/{limit}", "red" if used >= limit else "")


def _turn(turn: Turn) -> Text:
    down = [one.uri for one in turn.servers if one.up is False]
    text = f"TURN: {turn.credentials} credentials issued"
    if turn.servers:
        text += f", {len(turn.servers) - len(down)} of {len(turn.servers)} servers up"
    if not down:
        return Text(text)
    return Text(f"{text}, down: {plain(', '.join(down))}", "red")


def _rooms(rooms: list[Room]) -> Table:
    rows = table("BUSIEST ROOMS", "NAMESPACE", "SERVER", ">PEERS", ">EXPECTED")
    for one in rooms:
        rows.add_row(
            cell(one.id[1]),
            cell(one.id[0]),
            cell(one.server),
            cell(one.peers),
            cell(one.reservations),
        )
    return rows
