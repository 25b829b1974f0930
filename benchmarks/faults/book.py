"""What gateways have promised, and what was kept of it."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from benchmarks.faults.client import Refusal, RoomInfo, TaskBody

CLOSING: Final = "closing-"
"""How the names of rooms begin that are to be closed; the number of the call follows."""

BANNED: Final = "banned-"
"""How the ids of users begin that are to be banned; the number of the call follows."""

BanKey = tuple[str, str | None]
"""A room, and the user in it; None: the room itself."""


class Call(Struct):
    """A management call.

    Attributes:
        number: tells it from all others; it stands in the task.
        kind: the method.
        server: where its room was when it was sent.
        sent: when.
        acked: when ``{}`` came back; 0: it did not.
        port: of the gateway that was asked.
    """

    number: int
    kind: str
    server: str
    sent: float
    acked: float = 0.0
    port: int = 0


class Ban(Struct):
    """A ban that was acknowledged: from when, and for how many seconds."""

    since: float
    seconds: float


class Delivered(Struct):
    """A task that a server received.

    Attributes:
        server: the server.
        number: of the call.
        port: of the gateway whose reply to a report it came with.
    """

    server: str
    number: int
    port: int


class Book:
    """The promises.

    Attributes:
        placed: the server of each room for which a Connect was answered.
        moved: rooms that were later answered with another server: room, first, then.
        calls: management calls by number.
        bans: what was banned.
        connects: answered Connects.
        refused: refusals of Connects, by reason.
        calls_refused: refusals of management calls, by reason.
        samples: the last refusal or fault for each reason.
    """

    def __init__(self) -> None:
        self.placed: dict[str, str] = {}
        self.moved: list[tuple[str, str, str]] = []
        self.calls: dict[int, Call] = {}
        self.bans: dict[BanKey, Ban] = {}
        self.connects = 0
        self.refused: Counter[str] = Counter()
        self.calls_refused: Counter[str] = Counter()
        self.samples: dict[str, str] = {}
        self._number = 0

    def next_number(self) -> int:
        """Return a number that no call has."""
        self._number += 1
        return self._number

    def connected(self, room: str, address: str) -> None:
        """Take note of an answered Connect."""
        self.connects += 1
        before = self.placed.setdefault(room, address)
        if before != address:
            self.moved.append((room, before, address))

    def note(self, counts: Counter[str], error: Refusal) -> None:
        """Count a refusal."""
        reason = error.data.reason or str(error.code)
        counts[reason] += 1
        self.samples[reason] = error.message

    def acknowledged(self) -> list[Call]:
        """Return the calls that were answered ``{}``."""
        return [call for call in self.calls.values() if call.acked]

    def forget(self, rooms: Iterable[str]) -> None:
        """Forget rooms that are to end."""
        for room in rooms:
            self.placed.pop(room, None)


def number_of(task: TaskBody) -> int | None:
    """Return the number of the call that a task is from; None: it is from none."""
    if task.task == "RoomUpdate":
        return int.from_bytes(bytes(task.user_data), "big")
    if task.task == "RoomSendMessage":
        return int.from_bytes(bytes(task.message), "big")
    if task.task == "RoomBanClient" and task.user_id.startswith(BANNED):
        return int(task.user_id.removeprefix(BANNED))
    if task.task == "RoomClose" and task.id[1].startswith(CLOSING):
        return int(task.id[1].removeprefix(CLOSING))
    return None


class Deliveries(Struct):
    """What became of the tasks.

    Attributes:
        lost: acknowledged calls that no server received.
        strayed: tasks that another server received than the room's.
        disordered: tasks received before one that was acknowledged before they were sent.
        repeated: how many came more than once.
        unknown: tasks that nobody asked for.
    """

    lost: list[Call]
    strayed: list[Call]
    disordered: list[Call]
    repeated: int
    unknown: int

    @property
    def kept(self) -> bool:
        """Whether all was delivered as promised."""
        return not (self.lost or self.strayed or self.disordered or self.unknown)


def judge(calls: Mapping[int, Call], received: Sequence[Delivered]) -> Deliveries:
    """Compare what was asked for with what arrived.

    Args:
        calls: all calls, acknowledged or not.
        received: all tasks of all servers, those of one server in the order in which they came.
    """
    first: dict[str, list[Call]] = {}
    seen: set[int] = set()
    strayed, repeated, unknown = [], 0, 0
    for item in received:
        call = calls.get(item.number)
        if call is None:
            unknown += 1
        elif item.number in seen:
            repeated += 1
        else:
            seen.add(item.number)
            first.setdefault(item.server, []).append(call)
            if call.server != item.server:
                strayed.append(call)
    disordered = []
    for sequence in first.values():
        latest = 0.0
        for call in sequence:
            # Calls that were under way at the same time have no order.
            if call.acked and call.acked < latest:
                disordered.append(call)
            latest = max(latest, call.sent)
    lost = [call for call in calls.values() if call.acked and call.number not in seen]
    return Deliveries(lost, strayed, disordered, repeated, unknown)


class Rooms(Struct):
    """What became of the rooms: how many were found again, which are lost, which elsewhere."""

    found: int
    lost: list[str]
    misplaced: list[str]


def compare(placed: Mapping[str, str], known: Iterable[RoomInfo]) -> Rooms:
    """Compare where rooms were promised to be with where a gateway says that they are."""
    found: dict[str, str] = {room.id[1]: room.server for room in known}
    outcome = Rooms(0, [], [])
    for room, address in placed.items():
        now = found.get(room)
        if now is None:
            outcome.lost.append(room)
        elif now != address:
            outcome.misplaced.append(room)
        else:
            outcome.found += 1
    return outcome


def ban_holds(ban: Ban, reason: str, key: BanKey, retry_after: float | None) -> bool:
    """Tell whether a Connect was refused because of a ban that lasts as long as was asked for."""
    if reason != ("room_banned" if key[1] is None else "user_banned"):
        return False
    left = ban.seconds - (time.monotonic() - ban.since)
    return retry_after is not None and abs(retry_after - left) < 10
