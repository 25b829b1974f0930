"""Calls of clients and backends, whose outcomes go into the book."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.json import encode

from benchmarks.faults.book import BANNED, CLOSING, Ban, Book, Call, ban_holds
from benchmarks.faults.client import Outcome, Pool, Result, post
from benchmarks.faults.servers import Server
from odingw.tokens import AccessKey, TokenGenerator
from tests.process import ACCESS_KEY

MANAGE: Final = ("RoomUpdate", "RoomSendMessage", "RoomBanClient", "RoomClose")
BAN_TIME: Final = 36_000
_LIFETIME: Final = 86_400


def chance(seed: int) -> random.Random:
    """Return where a load's chance comes from."""
    return random.Random(seed)  # noqa: S311  -- a load has no secrets


class Caller:
    """Makes the requests of one customer; tokens are signed once and kept.

    Args:
        customer: its id, which is the namespace too.
        key: its access key.
        age: how many seconds ago its tokens were signed.
    """

    def __init__(
        self, customer: str = "acme", key: AccessKey = ACCESS_KEY, age: float = 0.0
    ) -> None:
        self.customer = customer
        self._age = age
        self._tokens = TokenGenerator(key)
        self._made: dict[tuple[str, str], bytes] = {}
        self._management: dict[str, str] = {}

    def connect(self, room: str, user: str) -> bytes:
        """Return a Connect."""
        request = self._made.get((room, user))
        if request is None:
            request = post("/", _call("Connect", {}), self._token(room, user, "connect"))
            self._made[room, user] = request
        return request

    def manage(self, method: str, room: str, **params: Any) -> bytes:
        """Return a management call."""
        token = self._management.get(room)
        if token is None:
            token = self._management[room] = self._token(room, "backend", MANAGE)
        return post("/", _call(method, {"room_id": room, **params}), token)

    def forget(self) -> None:
        """Drop the requests that are kept."""
        self._made.clear()
        self._management.clear()

    def _token(self, room: str, user: str, subject: str | Sequence[str]) -> str:
        return self._tokens.create_token(
            room, user, now=time.time() - self._age, lifetime=_LIFETIME, subject=subject
        )


def _call(method: str, params: Mapping[str, Any]) -> bytes:
    return encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


class Traffic:
    """Sends calls and keeps the book.

    Args:
        book: the promises.
        servers: by address; clients that were let in join them at once.
        caller: makes the requests.

    Attributes:
        ban_time: seconds for which rooms and users are banned.
    """

    def __init__(self, book: Book, servers: Mapping[str, Server], caller: Caller) -> None:
        self.ban_time = BAN_TIME
        self.book = book
        self.servers = servers
        self.caller = caller
        self.under_way = 0
        self.on_connect: Callable[[str, Outcome, str], None] | None = None

    def connect(self, pool: Pool, room: str, user: str) -> None:
        """Send a Connect."""
        self.under_way += 1

        def done(outcome: Outcome) -> None:
            self.under_way -= 1
            answer = outcome.answer()
            reason = ""
            if answer.error is not None:
                self.book.note(self.book.refused, answer.error)
                reason = answer.error.data.reason or str(answer.error.code)
            elif answer.result is not None:
                address = answer.result.address
                self.book.connected(room, address)
                server = self.servers.get(address)
                if server is not None:
                    server.join(self.caller.customer, room, user)
            if self.on_connect is not None:
                self.on_connect(room, outcome, reason)

        pool.submit(self.caller.connect(room, user), done)

    def manage(self, pool: Pool, method: str, room: str, *, number: int = 0) -> None:
        """Send a management call for a room that is placed.

        Args:
            pool: how.
            method: which; ``RoomClose`` and ``RoomBanClient`` come with a ban time.
            room: the room.
            number: of the call, if it has one already, as a room that is to be closed has.
        """
        book = self.book
        number = number or book.next_number()
        params: dict[str, Any] = {}
        key: tuple[str, str | None] | None = None
        if method == "RoomUpdate":
            params = {"user_data": list(number.to_bytes(4, "big"))}
        elif method == "RoomSendMessage":
            params = {"user_id": "user", "message": list(number.to_bytes(4, "big"))}
        elif method == "RoomBanClient":
            key = (room, f"{BANNED}{number}")
            params = {"user_id": key[1], "ban_time": self.ban_time}
        else:
            key = (room, None)
            params = {"ban_time": self.ban_time}
        call = Call(number, method, book.placed[room], 0.0, port=pool.port)
        book.calls[number] = call
        self.under_way += 1

        def done(outcome: Outcome) -> None:
            self.under_way -= 1
            call.sent = outcome.sent
            answer = outcome.answer()
            if answer.error is not None:
                book.note(book.calls_refused, answer.error)
                return
            call.acked = outcome.done
            if key is not None:
                book.bans[key] = Ban(outcome.done, self.ban_time)
                if key[1] is None:
                    book.forget([room])

        pool.submit(self.caller.manage(method, room, **params), done)

    def closing_room(self) -> tuple[str, int]:
        """Return the name of a room that is to be closed, and the number of the call for that."""
        number = self.book.next_number()
        return f"{CLOSING}{number}", number

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self.under_way:
            await asyncio.sleep(0.01)

    async def connect_all(self, pool: Pool, rooms: Iterable[tuple[str, str]]) -> None:
        """Connect a client to each room, and wait for the outcomes."""
        for room, user in rooms:
            self.connect(pool, room, user)
        await self.settle()

    async def check_bans(self, pool: Pool, bans: Mapping[tuple[str, str | None], Ban]) -> list[str]:
        """Connect in spite of bans; return what was let in or refused for another reason."""
        broken: list[str] = []
        left = len(bans)
        finished = asyncio.Event()

        def checker(key: tuple[str, str | None], ban: Ban) -> Callable[[Outcome], None]:
            def done(outcome: Outcome) -> None:
                nonlocal left
                left -= 1
                if not left:
                    finished.set()
                error = outcome.answer().error
                reason = (error.data.reason or error.message) if error else "let in"
                if error is None or not ban_holds(ban, reason, key, error.data.retry_after):
                    after = error.data.retry_after if error else None
                    broken.append(f"{key}: {reason}, retry_after {after}")

            return done

        for key, ban in bans.items():
            pool.submit(self.caller.connect(key[0], key[1] or "visitor"), checker(key, ban))
        if bans:
            await finished.wait()
        return broken

    async def info(self, pool: Pool) -> Result:
        """Return what a gateway knows of rooms and servers; nothing if it does not answer."""
        outcome = await pool.call(post("/internal", _call("Info", {})))
        return outcome.answer().result or Result()


async def open_loop(
    rate: float, send: Callable[[], None], stop: Callable[[], bool], room: Callable[[], bool]
) -> tuple[int, int]:
    """Send at a rate, whatever becomes of what was sent before.

    Args:
        rate: per second.
        send: sends one.
        stop: tells when to end.
        room: tells whether there is room for more; if not, what is due is left out.

    Returns:
        How many were sent, and how many were left out.
    """
    started = time.monotonic()
    sent = left_out = 0
    while not stop():
        due = int((time.monotonic() - started) * rate)
        while sent + left_out < due:
            if room():
                send()
                sent += 1
            else:
                left_out += 1
        await asyncio.sleep(0.004)
    return sent, left_out
