"""The grid of one pool in Redis: each call is one script, and Redis alone decides.

While Redis is away, known rooms are served by what was known last, reports are answered, and
everything else is refused.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Final, Protocol

from msgspec import DecodeError, json
from twisted.internet.defer import Deferred

from odingw.errors import Reason, Refused
from odingw.grid.bans import TEN_YEARS
from odingw.grid.rooms import base_of, common_base
from odingw.grid.store import Eventual
from odingw.grid.tasks import Delivery
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    GridSettings,
    Placed,
    Reported,
    RoomView,
    ServerReport,
    ServerView,
    TasksDropped,
)
from odingw.state.redis.copies import Copies, used_elsewhere
from odingw.state.redis.errors import RedisAwayError
from odingw.state.redis.reports import Reports
from odingw.state.redis.rows import ban_key, read_room, read_room_key, read_task, room_key, user_key
from odingw.state.slices import Slices, Timer
from odingw.state.steps import Steps

MOST: Final = 100
"""Connects in one call: Redis does nothing else meanwhile."""

TOLD: Final = 20
"""Connects that are answered in one reactor step: each of them has work to do then."""

PAGE: Final = 500
"""Rooms that are read from Redis in one go."""

REFRESH: Final = 0.2
"""Seconds from one look that somebody waits for to the next."""

_PICK: Final = 2**31


class SharedDelivery(Delivery, frozen=True, eq=False):
    """Tasks on their way in one reply.

    Attributes:
        token: tells this flight from any other.
        names: the tasks' names in Redis.
    """

    token: str = ""
    names: tuple[str, ...] = ()


class Line(Protocol):
    """What carries out scripts for a pool, and commands."""

    async def run(self, pool: "RedisGrid", script: str, asked: Sequence[Any]) -> Any:
        """Carry out a script."""

    async def read(self, pool: "RedisGrid", *command: str | bytes) -> Any:
        """Carry out a command on this pool's keys."""


class RedisGrid:
    """The grid of one pool; an :class:`odingw.grid.store.GridStore`.

    Args:
        key: of its ``main``.
        settings: the numbers that the rules depend on.
        pick: given n, a random number from 0 to n - 1.
        gateway: this gateway's id.
        line: carries out scripts.
        timer: for delays.
        pools: all pools.
        skip: told of what cannot be read.
        steps: measures how long work here holds the reactor up.
        spread: whether other pools' keys are out of the reach of this one's scripts.

    Attributes:
        up: whether scripts can be carried out.
        ahead: seconds that Redis's clock is ahead of this gateway's.
        epoch: of this pool's keys.
        run_id: tells this Redis from one that has taken its place.
        lost: whether something of this epoch is missing.
        ticking: whether its periodic work is under way.
        accepted: tasks that this gateway has accepted and that are not known to be done.
        arrived: tasks whose delivery arrived, and when.
        unsettled: calls to make when Redis is back.
        now: this gateway's time, when it was last told.
    """

    def __init__(
        self,
        key: str,
        settings: GridSettings,
        pick: Callable[[int], int],
        gateway: str,
        line: Line,
        timer: Timer,
        pools: Mapping[str, "RedisGrid"],
        skip: Callable[[str], None],
        steps: Steps,
        *,
        spread: bool = False,
    ) -> None:
        self.up = False
        self.ahead = 0.0
        self.epoch = ""
        self.run_id = ""
        self.lost = False
        self.ticking = False
        self.copies = Copies()
        self.accepted: dict[str, Any] = {}
        self.arrived: dict[str, float] = {}
        self.unsettled: list[tuple[Any, ...]] = []
        self.now = 0.0
        self.key = key
        self.skip = skip
        self.steps = steps
        self._settings = settings
        self._retry_after = settings.report_interval
        self._pick = pick
        self._gateway = gateway
        self._line = line
        self._timer = timer
        self._pools = pools
        self._spread = spread
        self.reports = Reports(self, gateway, settings.report_interval, Slices(timer))
        self._waiting: list[tuple[Admission, Deferred[Placed]]] = []
        self._flying: dict[str, str] = {}
        self._refreshed = -REFRESH
        self._unknown: list[Deferred[None]] = []
        self._scheduled = False
        self._connecting = False
        self._numbers = 0

    def run(self, script: str, *asked: Any) -> Deferred[Any]:
        """Carry out a script; fails with ``RedisAwayError``."""
        return Deferred.fromCoroutine(self._line.run(self, script, asked))

    def _others(self) -> list[Copies]:
        return [pool.copies for pool in self._pools.values() if pool is not self]

    # Connect

    def connect(self, admission: Admission, now: float) -> Eventual[Placed]:
        """Admit a client; all Connects of a reactor step are one call."""
        self.now = now
        if not self.up:
            return self._connect_apart(admission)
        placed: Deferred[Placed] = Deferred()
        self._waiting.append((admission, placed))
        self._soon()
        return placed

    def _connect_apart(self, admission: Admission) -> Placed:
        return self.copies.connect(
            admission,
            self.now + self.ahead,
            self._others(),
            self._settings.reservation_lifetime,
            self._retry_after,
        )

    def _soon(self) -> None:
        if not self._scheduled and not self._connecting:
            self._scheduled = True
            self._timer.callLater(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if batch:
            self._connecting = True
            asked = [self._ask(admission) for admission, _ in batch]
            self.run("connect", asked, self._pick(_PICK)).addBoth(self._connected, batch)

    def _ask(self, admission: Admission) -> tuple[Any, ...]:
        names, namespace = admission.rooms, admission.namespace
        fault = ""
        if len(names) != 1:
            try:
                common_base(names)
            except Refused as error:
                fault = error.reason
        room = base = room_key(namespace, names[-1] if names else "")
        bans: list[str] = []
        for name in names:
            key = room if name is names[-1] else room_key(namespace, name)
            bans += (f"b{key}", f"b{key}\0{admission.user}")
        if "{" in room:
            base = room_key(namespace, base_of(names[-1]))
        limits = (admission.max_peers, admission.max_rooms, admission.demo_peers)
        return (
            admission.customer,
            room,
            base,
            bans,
            user_key((admission.user, admission.token_id)),
            *(-1 if limit is None else limit for limit in limits),
            admission.server if admission.server is not None else "",
            fault,
            *used_elsewhere(admission, self._others() if self._spread else ()),
        )

    def _connected(self, answer: Any, batch: list[tuple[Admission, Deferred[Placed]]]) -> None:
        self._connecting = False
        if self._waiting:
            self._soon()
        self._tell(answer, batch)

    def _tell(self, answer: Any, batch: list[tuple[Admission, Deferred[Placed]]]) -> None:
        answers = answer[0] if isinstance(answer, list) else [None] * len(batch)
        with self.steps:
            for (admission, placed), each in zip(batch[:TOLD], answers, strict=False):
                try:
                    result = self._placed(admission, each)
                except Exception as error:
                    placed.errback(error)
                else:
                    placed.callback(result)
        if len(batch) > TOLD:
            rest = [answers[TOLD:]] if isinstance(answer, list) else answer
            self._timer.callLater(0, lambda: self._tell(rest, batch[TOLD:]))

    def _placed(self, admission: Admission, answer: Any) -> Placed:
        if answer is None:
            return self._connect_apart(admission)
        how, what, extra = answer
        if how == "refused":
            if what == Reason.STORE_UNAVAILABLE:
                return self._connect_apart(admission)
            raise Refused(what, extra or self._after(what))
        placed = Placed(what, how, extra)
        now = self.now + self.ahead
        self.copies.answer((admission.namespace, base_of(admission.rooms[-1])), what, self.now)
        self.copies.grant(admission, placed, now + self._settings.reservation_lifetime, now)
        return placed

    def _after(self, reason: str) -> float | None:
        faults = (Reason.RID_EMPTY, Reason.RID_BASE_MISMATCH)
        return None if reason in faults else self._retry_after

    # Reports and tasks

    def report(self, report: ServerReport, now: float, *, take: bool = False) -> Deferred[Reported]:
        """Take in a report; it is answered whether or not Redis is there."""
        self.now = now
        return Deferred.fromCoroutine(self.reports.take_in(report, now, take=take))

    def command(self, command: Command, now: float) -> Deferred[None]:
        """Queue a task for whichever server has the room."""
        self.now = now
        return Deferred.fromCoroutine(self._command(command))

    async def _command(self, command: Command) -> None:
        body = json.encode(command.body)
        self._numbers += 1
        suffix = f" {self._gateway} {self._numbers}"
        ban, seconds = "", 0.0
        if command.ban is not None:
            ban = ban_key((command.room, command.user))
            seconds = min(command.ban, TEN_YEARS)
        room, customer = room_key(*command.room), command.customer
        asked = ("command", room, suffix, customer, len(body), body.decode(), ban, seconds)
        task, address = await self._manage(*asked)
        if task:
            base = room_key(*command.base)
            self.accepted[task] = [address, base, customer, len(body), 0, 0, body.decode()]

    async def _manage(self, *asked: Any) -> Any:
        try:
            reason, *told = await self.run("manage", *asked)
        except RedisAwayError:
            raise self._unavailable() from None
        if reason:
            late = reason in (Reason.TOO_MANY_TASKS, Reason.STORE_UNAVAILABLE)
            raise Refused(reason, self._retry_after if late else None)
        return self._told(*told)

    def _told(self, fact: Any, *more: Any) -> Any:
        """Take in what was said: if Redis loses it, this gateway tells it again."""
        if fact:
            self.copies.facts[fact[0]] = fact[1]
        return more

    def take(self, address: str) -> Deferred[Delivery | None]:
        """Put the tasks that may be sent to a server now in flight."""
        return Deferred.fromCoroutine(self._take(address))

    async def _take(self, address: str) -> Delivery | None:
        known = self.flights(address)
        token = self.new_token(address)
        try:
            (taken,) = await self.run("settle", "take", address, token, known)
        except RedisAwayError:
            # Redis may have done it all the same; the next take ends that.
            self.end_flight(token)
            return None
        return self.delivery(address, token, taken)

    def new_token(self, address: str) -> str:
        """Return a token for a delivery, which is under way until it is settled."""
        self._numbers += 1
        token = f"{self._gateway} {self._numbers}"
        self._flying[token] = address
        return token

    def flights(self, address: str) -> list[str]:
        """Return the tokens of the deliveries to a server that are under way."""
        return [token for token, server in self._flying.items() if server == address]

    def end_flight(self, token: str) -> bool:
        """Take in that a delivery is over; False if it was."""
        return self._flying.pop(token, None) is not None

    def delivery(self, address: str, token: str, taken: Sequence[Any]) -> Delivery | None:
        """Return the tasks that were taken; those that cannot be read are dropped."""
        tasks, names = [], []
        for name, returned, customer, body in taken:
            try:
                tasks.append(read_task(name, returned, customer, body))
            except (DecodeError, ValueError) as error:
                self.skip(f"the task {name}: {error}")
            names.append(name)
        if not names:
            self.end_flight(token)
            return None
        delivery = SharedDelivery(address, tuple(tasks), token, tuple(names))
        if not tasks:
            self.acknowledge(delivery)
            return None
        return delivery

    def acknowledge(self, delivery: Delivery) -> None:
        """Forget tasks that arrived; if Redis is away, as soon as it is back."""
        Deferred.fromCoroutine(self._settle(delivery, "arrived"))

    def give_back(self, delivery: Delivery) -> Deferred[tuple[Event, ...]]:
        """Queue tasks that did not arrive again."""
        return Deferred.fromCoroutine(self._settle(delivery, "returned"))

    async def _settle(self, delivery: Delivery, how: str) -> tuple[Event, ...]:
        assert isinstance(delivery, SharedDelivery)  # noqa: S101  -- take() makes no others
        if not self.end_flight(delivery.token):
            return ()
        if how == "arrived":
            for name in delivery.names:
                self.accepted.pop(name, None)
                self.arrived[name] = self.now
        asked = ("settle", how, delivery.address, delivery.token, delivery.names)
        try:
            (dropped,) = await self.run(*asked)
        except RedisAwayError:
            self.unsettled.append(asked)
            return ()
        by_name = dict(zip(delivery.names, delivery.tasks, strict=False))
        tasks = tuple(by_name[name] for name in dropped if name in by_name)
        for task in tasks:
            task.returned += 1
        return (TasksDropped(delivery.address, tasks),) if tasks else ()

    # Servers

    def drain(self, address: str, drained: bool) -> Deferred[None]:
        """Let a server take no new rooms, or take them again."""
        return Deferred.fromCoroutine(self._set("drain", address, drained))

    def disable(self, address: str) -> Deferred[None]:
        """Write a server off until it reports again."""
        return Deferred.fromCoroutine(self._set("disable", address, True))

    async def _set(self, what: str, address: str, value: bool) -> None:
        await self._manage(what, address, value)
        await self.look()

    def give_key(self, address: str, kid: str, now: float) -> Deferred[str]:
        """Remember which key a server is given; it is, when Redis has it."""
        self.now = now
        return Deferred.fromCoroutine(self._give(address, kid))

    async def _give(self, address: str, kid: str) -> str:
        fact, row = self.copies.facts.get(f"g{address}"), self.copies.rows.get(address)
        before = fact[1] if fact else row.kid if row else None
        if not self.up and before is not None:
            return str(before)
        at = self.now + self.ahead
        try:
            _, *told = await self.run("manage", "give", address, kid, False)
        except RedisAwayError:
            # What other gateways sign with must not be wrong; this is told when Redis is back.
            kid = kid if before is None else str(before)
            self.unsettled.append(("manage", "give", address, kid, at))
        else:
            self._told(*told)
            await self.look()
        return kid

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server that was given the key with this id."""
        return self.copies.address_of_key(kid)

    def refresh(self) -> Deferred[None] | None:
        """Learn of servers and keys that came up elsewhere, a few times a second at most."""
        if not self.up:
            return None
        refreshed: Deferred[None] = Deferred()
        self._unknown.append(refreshed)
        if len(self._unknown) == 1:
            wait = self._refreshed + REFRESH - time.monotonic()
            self._timer.callLater(max(0.0, wait), self._refresh)
        return refreshed

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        unknown, self._unknown = self._unknown, []

        def tell(_: None) -> None:
            for refreshed in unknown:
                refreshed.callback(None)

        self.look().addCallback(tell)

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""
        return self.copies.rows.keys()

    def servers(self) -> Iterable[ServerView]:
        """Yield all servers, as they were a second ago at most."""
        return self.copies.servers(self.ahead)

    async def pages(self) -> AsyncIterator[Sequence[RoomView]]:
        """Yield all rooms, page by page; while Redis is away, none."""
        for address in list(self.copies.rows):
            try:
                async for page in self.rooms_of(address):
                    yield page
            except RedisAwayError:
                return

    async def rooms_of(self, address: str) -> AsyncIterator[Sequence[RoomView]]:
        """Yield the rooms of a server, page by page."""
        cursor, seen = b"0", set[str]()
        while True:
            key = f"{self.key[:-4]}{self.epoch}:rooms:{address}"
            cursor, found = await self._line.read(self, "HSCAN", key, cursor, "COUNT", str(PAGE))
            yield [
                view
                for name, row in zip(found[::2], found[1::2], strict=True)
                if name and name not in seen and (view := self._view(address, name, row))
            ]
            seen.update(found[::2])
            if cursor == b"0":
                return

    def _view(self, address: str, name: bytes, value: bytes) -> RoomView | None:
        try:
            room, row = read_room_key(name.decode()), read_room(value)
        except (DecodeError, ValueError) as error:
            self.skip(f"a room of {address}: {error}")
            return None
        server = self.copies.rows.get(address)
        reported = row.peers >= 0
        return RoomView(
            id=room,
            customer=row.customer,
            server=address,
            peers=max(0, row.peers),
            reservations=row.reservations,
            reported=reported,
            updated=(server.seen if server and reported else row.placed) - self.ahead,
        )

    # What a gateway does by itself

    def look(self) -> Deferred[None]:
        """Bring the copies up to date."""
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        copies = self.copies
        waiting = list(self.accepted)[:MOST]
        for task in waiting:
            # What is not done has its turn again after the others.
            self.accepted[task] = self.accepted.pop(task)
        try:
            look = await self.run("look", copies.fact, waiting)
        except RedisAwayError:
            return
        with self.steps:
            for problem in copies.take_in(look):
                self.skip(problem)
        for task in look.done:
            self.accepted.pop(task, None)

    def sweep(self, now: float) -> None:
        """Forget what is over."""
        self.now = now
        self.copies.sweep(now, now + self.ahead, self._gateway, self._settings.remove_timeout)
        for task in [task for task, at in self.arrived.items() if at < now - 60]:
            del self.arrived[task]

    async def leave(self) -> None:
        """Say goodbye: what is in flight is nobody's any more."""
        try:
            await self._line.read(self, "ZREM", f"{self.key[:-4]}gateways", self._gateway)
        except RedisAwayError:
            return

    def _unavailable(self) -> Refused:
        return Refused(Reason.STORE_UNAVAILABLE, self._retry_after)
