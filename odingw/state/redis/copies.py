"""What a gateway keeps a copy of, and what it decides by that while Redis is away.

Servers, bans, drains and usage are read once a second as far as they are new. Of rooms it knows
those that its own servers report, and those that it has answered for in the last hour.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from msgspec import DecodeError, Struct, msgpack

from odingw.errors import Reason, Refused
from odingw.grid.placement import HEADROOM
from odingw.grid.rooms import BaseId, RoomId, base_of, common_base
from odingw.grid.usage import ALL_DEMO, DEMO_PREFIX
from odingw.grid.values import Admission, Placed, ServerView, UsageView
from odingw.state.redis.rows import (
    LIVE,
    REMOVED,
    ServerRow,
    ban_key,
    read_server,
    room_key,
    text_of,
    user_key,
)
from odingw.state.redis.scripts import Look

REMEMBERED: Final = 200_000
"""How many bases are remembered for which this gateway has answered."""

REMEMBERED_TIME: Final = 3600.0
"""Seconds after the last answer for which one is remembered."""

ELSEWHERE: Final = 30.0
"""Seconds without a report after which a server is another gateway's, if that hears it."""

_NOTHING: Final = b"\xa0"
"""The empty text, as MessagePack."""

_text: Final = msgpack.Decoder(str).decode
_read_fact: Final = msgpack.Decoder(tuple[str, list[Any]]).decode
_read_counts: Final = msgpack.Decoder(list[str]).decode


class Heard:
    """A server that reports to this gateway.

    Attributes:
        said: the rooms that it reported last: peers and customer.
        twice: further entries for some of them.
        written: the rooms of it that Redis has.
        known: the rooms by which clients find it.
        stamp: marks that Redis has what was written; empty: that is not known.
        row: key id, version, load and clients as last reported.
        foreign: rooms that it is to close.
        at: when it reported last, by the gateway's clock.
    """

    __slots__ = ("at", "busy", "foreign", "known", "row", "said", "stamp", "twice", "written")

    def __init__(self) -> None:
        self.said: dict[RoomId, tuple[int, str]] = {}
        self.written: dict[RoomId, tuple[int, str]] = {}
        self.known: dict[RoomId, tuple[int, str]] = {}
        self.twice: dict[RoomId, tuple[int, str]] = {}
        self.stamp = ""
        self.row: tuple[str, str, float, int] = ("", "", 0.0, 0)
        self.foreign: set[RoomId] = set()
        self.at = 0.0
        self.busy = False


class Grant(Struct, frozen=True, gc=False):
    """A reservation that this gateway has made, as it is put back where Redis has lost it."""

    ends: float
    made: float
    room: str
    user: str
    customer: str
    address: str


class Copies:
    """What one gateway knows of a pool.

    Attributes:
        heard: the servers that report here.
        rows: all servers; those that a look has not shown yet too.
        gateways: ids of those with a lease.
        facts: bans, drains and given keys, with the number of each.
        writing: whether some gateway still writes what Redis has lost.
        apart: how many places customers were granted here since Redis is away.
    """

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}
        self.rows: dict[str, ServerRow] = {}
        self.gateways: Sequence[str] = ()
        self.facts: dict[str, Sequence[Any]] = {}
        self.grants: dict[tuple[str, str], Grant] = {}
        self.apart: dict[str, int] = {}
        self.growth = 2.0
        self.fact = 0
        self._tallies: dict[str, int] = {}
        self._usage: dict[str, list[int]] = {}
        self._by_kid: dict[str, str] = {}
        self._answered: dict[BaseId, tuple[str, float]] = {}
        self._where: dict[BaseId, str] = {}
        self._rooms_of: dict[BaseId, int] = {}

    def take_in(self, look: Look) -> Iterator[str]:
        """Take in a look; yield what of it cannot be read."""
        self.gateways, self.growth = look.gateways, look.growth
        rows, by_kid = {}, {}
        for address, value in zip(look.servers[::2], look.servers[1::2], strict=True):
            if bytes(address) == _NOTHING:
                continue
            try:
                row, name = read_server(text_of(value)), _text(address)
                if row.state != REMOVED:
                    rows[name] = row
                    by_kid[row.kid] = name
            except (DecodeError, ValueError) as error:
                yield f"a server: {error}"
        self.rows, self._by_kid = rows, by_kid
        for raw in look.facts:
            try:
                key, fact = _read_fact(raw)
            except (DecodeError, ValueError) as error:
                yield f"a fact: {error}"
            else:
                self.facts[key] = fact
                self.fact = max(self.fact, fact[0])
        try:
            tallies = iter(_read_counts(look.tallies))
            self._tallies = {
                field: int(count) for field, count in zip(tallies, tallies, strict=True) if field
            }
            usage = _read_counts(look.usage)
            counted = {ALL_DEMO: look.demo} if any(look.demo) else {}
            for field, count in zip(usage[::2], usage[1::2], strict=True):
                if field:
                    counts = counted.setdefault(field[1:], [0, 0, 0])
                    counts["prn".index(field[0])] = int(count)
            self._usage = counted
        except (DecodeError, ValueError) as error:
            yield f"usage: {error}"

    def sweep(self, now: float, fleet_now: float, gateway: str, remove_timeout: float) -> None:
        """Forget what is over, and servers that report elsewhere."""
        for address, heard in list(self.heard.items()):
            row = self.rows.get(address)
            elsewhere = row is not None and row.via != gateway and heard.at < now - ELSEWHERE
            if elsewhere or heard.at < now - remove_timeout:
                self.know(address, heard, {})
                del self.heard[address]
        over = [key for key, fact in self.facts.items() if key[0] == "b" and fact[1]]
        for key in over:
            if self.facts[key][1] <= fleet_now:
                del self.facts[key]
        self._trim(self.grants, lambda grant: grant.ends <= fleet_now)
        self._trim(self._answered, lambda answer: answer[1] <= now - REMEMBERED_TIME)

    @staticmethod
    def _trim(kept: dict[Any, Any], is_over: Any) -> None:
        for key in list(islice(kept, 5000)):
            if not is_over(kept[key]):
                return
            del kept[key]

    def servers(self, ahead: float) -> Iterator[ServerView]:
        """Yield all servers; ``ahead`` are the seconds that Redis's clock is."""
        for address, row in self.rows.items():
            rooms, peers, reserved, growth, tasks = (
                max(0, self._tallies.get(kind + address, 0)) for kind in "rpngt"
            )
            yield ServerView(
                address=address,
                kid=row.kid,
                version=row.version,
                load=row.load,
                expected_load=row.estimate
                + (reserved + growth + HEADROOM * self.growth) * row.cost,
                clients=row.clients,
                rooms=rooms,
                peers=peers,
                reservations=reserved,
                disabled=row.state != LIVE,
                drained=row.drained,
                unheard=row.unheard,
                first_seen=row.first - ahead,
                last_seen=row.seen - ahead,
                tasks=tasks,
            )

    def usage(self) -> Iterator[UsageView]:
        """Yield what customers use, demo users as one."""
        for customer, (peers, reservations, rooms) in self._usage.items():
            yield UsageView(customer=customer, peers=peers, reservations=reservations, rooms=rooms)

    def used(self, customer: str) -> tuple[int, int]:
        """Return peers (reservations too) and rooms of a customer at the last look."""
        peers, reservations, rooms = self._usage.get(customer, (0, 0, 0))
        return peers + reservations, rooms

    def address_of_key(self, kid: str) -> str | None:
        """Return the server that has the key with this id."""
        return self._by_kid.get(kid)

    # Rooms

    def answer(self, base: BaseId, address: str, now: float) -> None:
        """Remember where a base is."""
        self._answered.pop(base, None)
        self._answered[base] = (address, now)
        if len(self._answered) > REMEMBERED:
            del self._answered[next(iter(self._answered))]

    def grant(self, admission: Admission, placed: Placed, ends: float, made: float) -> None:
        """Remember a reservation."""
        room = room_key(admission.namespace, admission.rooms[-1])
        user = user_key((admission.user, admission.token_id))
        before = self.grants.pop((room, user), None)
        self.grants[room, user] = Grant(
            ends, before.made if before else made, room, user, admission.customer, placed.address
        )

    def know(self, address: str, heard: Heard, rooms: dict[RoomId, tuple[int, str]]) -> None:
        """Take in which rooms a server has."""
        before, heard.known = heard.known, rooms
        for room in before.keys() - rooms.keys():
            self._forget(address, room)
        for room in rooms.keys() - before.keys():
            self._know(address, room)

    def _know(self, address: str, room: RoomId) -> None:
        base = (room[0], base_of(room[1]))
        if base != room:
            self._rooms_of[base] = self._rooms_of.get(base, 0) + 1
            self._where[base] = address
        else:
            self._where[room] = address

    def _forget(self, address: str, room: RoomId) -> None:
        base = (room[0], base_of(room[1]))
        if base != room:
            self._rooms_of[base] -= 1
            if self._rooms_of[base]:
                return
            del self._rooms_of[base]
        if self._where.get(base) == address and (base == room or base not in self._rooms_of):
            del self._where[base]

    def find(self, base: BaseId) -> str | None:
        """Return the address of the server that has a base, as far as that is known."""
        found = self._where.get(base)
        if found is None:
            found = self._answered.get(base, (None, 0.0))[0]
        row = self.rows.get(found) if found is not None else None
        return found if row is not None and row.state == LIVE else None

    # While Redis is away

    def connect(
        self,
        admission: Admission,
        now: float,
        others: Iterable["Copies"],
        lifetime: float,
        retry_after: float,
    ) -> Placed:
        """Admit a client to a room that is known, by what was known last.

        Raises:
            Refused: as :meth:`odingw.grid.grid.Grid.connect`; ``store_unavailable`` if the room is
                not known.
        """
        names = admission.rooms
        name = names[-1] if names else ""
        base = (admission.namespace, base_of(name))
        room = room_key(admission.namespace, name)
        user = user_key((admission.user, admission.token_id))
        held = self.grants.get((room, user))
        own = int(held is not None and held.customer == admission.customer and held.ends > now)
        self._check_peers(admission, own, (self, *others), retry_after)
        common_base(names)
        self._check_bans(admission, now)
        address = self.find(base)
        if address is None:
            raise Refused(Reason.STORE_UNAVAILABLE, retry_after)
        placed = Placed(address, "existing", self.rows[address].kid)
        if not own:
            self.apart[admission.customer] = self.apart.get(admission.customer, 0) + 1
        self.grant(admission, placed, now + lifetime, now)
        return placed

    def _check_peers(
        self, admission: Admission, own: int, pools: Iterable["Copies"], retry_after: float
    ) -> None:
        peers = demo = 0
        for pool in pools:
            peers += pool.used(admission.customer)[0] + pool.apart.get(admission.customer, 0)
            demo += pool.used(ALL_DEMO)[0]
            if admission.demo_peers is not None:
                demo += sum(n for name, n in pool.apart.items() if name.startswith(DEMO_PREFIX))
        for used, limit in ((peers, admission.max_peers), (demo, admission.demo_peers)):
            if limit is not None and used - own >= limit:
                raise Refused(Reason.PEER_LIMIT_EXCEEDED, retry_after)

    def _check_bans(self, admission: Admission, now: float) -> None:
        for name in admission.rooms:
            room = (admission.namespace, name)
            for user, reason in ((None, Reason.ROOM_BANNED), (admission.user, Reason.USER_BANNED)):
                ban = self.facts.get(ban_key((room, user)))
                if ban is not None and ban[1] and ban[1] > now:
                    raise Refused(reason, ban[1] - now)


def used_elsewhere(admission: Admission, pools: Iterable[Copies]) -> tuple[int, int, int]:
    """Return what a customer used in other slots a moment ago: peers, rooms, demo users' peers."""
    if admission.max_peers is admission.max_rooms is admission.demo_peers is None:
        return 0, 0, 0
    peers = rooms = demo = 0
    for pool in pools:
        more, rooms_there = pool.used(admission.customer)
        peers, rooms, demo = peers + more, rooms + rooms_there, demo + pool.used(ALL_DEMO)[0]
    return peers, rooms, demo
