"""The two JSON-RPC APIs over HTTP: who calls, what is answered, and whether it arrived."""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from odingw.config import Trusted
from odingw.errors import RpcError, TokenError, TokenFault
from odingw.grid.store import GridStore
from odingw.grid.tasks import Delivery
from odingw.grid.values import Event
from odingw.ops.metrics import Metrics
from odingw.rpc.callers import (
    Authenticator,
    Caller,
    check_length,
    missing_authorization,
    unauthorized,
)
from odingw.rpc.client_api import ClientCall
from odingw.rpc.jsonrpc import Engine, Reply, error_reply
from odingw.rpc.server_api import ServerCall
from odingw.web.address import UNKNOWN, block_of, client_address
from odingw.web.channel import GatewayRequest
from odingw.web.delivery import Parcel
from odingw.web.guard import InternalGuard
from odingw.web.rate import RateLimit, check_rate

T = TypeVar("T")

Answer: TypeAlias = Reply | Deferred[Reply]


class Api(ABC):
    """Answers requests to one path.

    Args:
        name: in metrics.
        metrics: counts.
        now: the gateway's steady clock.
    """

    internal = False

    def __init__(self, name: str, metrics: Metrics, now: Callable[[], float]) -> None:
        self._name = name
        self._metrics = metrics
        self._now = now

    def handle(self, request: GatewayRequest) -> Answer:
        """Answer a POST; what is wrong with it becomes a reply too."""
        began = time.perf_counter()
        try:
            answer = self._answer(request)
        except RpcError as error:
            answer = error_reply(error)
        if isinstance(answer, Reply):
            self._metrics.seconds(self._name, time.perf_counter() - began)
            return answer
        return self._later(answer, began)

    @abstractmethod
    def _answer(self, request: GatewayRequest) -> Reply | Awaitable[Reply]:
        """Answer a POST, or raise ``RpcError``."""

    def _later(self, answer: Awaitable[Reply], began: float) -> Deferred[Reply]:
        """Go on even if nobody waits any more: what was begun must be settled."""
        outer: Deferred[Reply] = Deferred(lambda _: None)

        def settle(result: Reply | Failure) -> None:
            self._metrics.seconds(self._name, time.perf_counter() - began)
            if not outer.called:
                outer.callback(result)

        outer.addErrback(_forget_cancelled)
        Deferred.fromCoroutine(_coroutine(answer)).addBoth(settle)
        return outer


async def _coroutine(answer: Awaitable[T]) -> T:
    return await answer


def _forget_cancelled(failure: Failure) -> Reply:
    failure.trap(CancelledError)
    return Reply(204, None)


class ClientHttp(Api):
    """The client API of one pool.

    Args:
        engine: carries out the calls.
        authenticator: judges tokens.
        token_limit: how many characters a token may have.
        per_address: requests a second of one client address.
        per_key: requests a second of one access key; of one address, in demo mode.
        trusted: proxies that are believed about addresses.
        refresh: makes keys known that came up elsewhere a moment ago; None: there are none.
    """

    def __init__(
        self,
        engine: Engine[ClientCall],
        authenticator: Authenticator,
        metrics: Metrics,
        now: Callable[[], float],
        *,
        token_limit: int,
        per_address: RateLimit,
        per_key: RateLimit,
        trusted: Sequence[Trusted],
        refresh: Callable[[], Awaitable[None] | None] = lambda: None,
    ) -> None:
        super().__init__("client", metrics, now)
        self._engine = engine
        self._authenticator = authenticator
        self._token_limit = token_limit
        self._per_address = per_address
        self._per_key = per_key
        self._trusted = trusted
        self._refresh = refresh

    def _answer(self, request: GatewayRequest) -> Reply | Awaitable[Reply]:
        now, wall = self._now(), time.time()
        if self._per_address.active:
            check_rate(self._per_address, client_address(request, self._trusted), now)
        try:
            caller = self._authenticate(request, wall)
        except TokenError as error:
            refreshed = self._refresh() if error.fault is TokenFault.UNKNOWN_KEY else None
            if refreshed is None:
                raise self._unauthorized(error) from None
            return self._answer_later(request, refreshed, now, wall)
        return self._answer_to(caller, request, now, wall)

    async def _answer_later(
        self, request: GatewayRequest, refreshed: Awaitable[None], now: float, wall: float
    ) -> Reply:
        await refreshed
        try:
            caller = self._authenticate(request, wall)
        except TokenError as error:
            raise self._unauthorized(error) from None
        reply = self._answer_to(caller, request, now, wall)
        return reply if isinstance(reply, Reply) else await reply

    def _answer_to(
        self, caller: Caller, request: GatewayRequest, now: float, wall: float
    ) -> Reply | Awaitable[Reply]:
        if self._per_key.active:
            check_rate(self._per_key, self._key_of(caller, request), now)
        for rule in caller.relaxed:
            self._metrics.relaxed(rule)
        body = request.content.getvalue()
        return self._engine.handle(body, ClientCall(caller, now, wall), caller.methods)

    def _key_of(self, caller: Caller, request: GatewayRequest) -> str:
        """Return what a caller is counted by: demo users make up their key ids, at will."""
        if not caller.is_demo:
            return caller.kid
        address = client_address(request, self._trusted)
        return f"demo {block_of(str(address))}"

    def _authenticate(self, request: GatewayRequest, wall: float) -> Caller:
        try:
            caller = self._authenticator.authenticate(self._token(request), wall)
        except RpcError:
            self._metrics.verified("ok")
            raise
        self._metrics.verified("ok")
        return caller

    def _unauthorized(self, error: TokenError) -> RpcError:
        self._metrics.verified(str(error.fault))
        return unauthorized(error)

    def _token(self, request: GatewayRequest) -> str:
        values = request.requestHeaders.getRawHeaders(b"authorization")
        if values is None or len(values) != 1:
            raise missing_authorization()
        scheme, _, token = values[0].decode("latin-1").partition(" ")
        scheme = scheme.lower()
        if scheme == "basic":
            raise TokenError(TokenFault.MISSING, "invalid credentials")
        if scheme != "bearer":
            raise missing_authorization()
        check_length(token, self._token_limit)
        return token.strip(" ")


class ServerHttp(Api):
    """The server API of one pool.

    Args:
        engine: carries out the calls.
        store: the pool's grid.
        guard: decides who may call.
        on_event: told of what operators want to know.
        trusted: proxies that are believed about addresses.
    """

    internal = True

    def __init__(
        self,
        engine: Engine[ServerCall],
        store: GridStore,
        guard: InternalGuard,
        metrics: Metrics,
        now: Callable[[], float],
        on_event: Callable[[Event], None],
        trusted: Sequence[Trusted],
    ) -> None:
        super().__init__("server", metrics, now)
        self._engine = engine
        self._store = store
        self._guard = guard
        self._on_event = on_event
        self._trusted = trusted

    def _answer(self, request: GatewayRequest) -> Reply | Awaitable[Reply]:
        allowed = self._guard.check(request, proxied=request.site.proxied)
        address = client_address(request, self._trusted)
        peer = None if address in (None, UNKNOWN) else str(address)
        call = ServerCall(peer, allowed, self._now())
        try:
            reply = self._engine.handle(request.content.getvalue(), call)
        except Exception:
            for delivery in call.deliveries:
                self._lost(delivery)
            raise
        if isinstance(reply, Reply):
            self._send(request, call)
            return reply
        return self._replied_later(request, call, reply)

    async def _replied_later(
        self, request: GatewayRequest, call: ServerCall, reply: Awaitable[Reply]
    ) -> Reply:
        try:
            return await reply
        finally:
            self._send(request, call)

    def _send(self, request: GatewayRequest, call: ServerCall) -> None:
        for delivery in call.deliveries:
            self._metrics.tasks("sent", len(delivery.tasks))
            if request.channel is None:
                self._lost(delivery)
            else:
                request.channel.outbox.send(self._parcel(delivery))

    def _parcel(self, delivery: Delivery) -> Parcel:
        return Parcel(lambda: self._arrived(delivery), lambda: self._lost(delivery))

    def _arrived(self, delivery: Delivery) -> None:
        self._metrics.tasks("delivered", len(delivery.tasks))
        self._store.acknowledge(delivery)

    def _lost(self, delivery: Delivery) -> None:
        self._metrics.tasks("returned", len(delivery.tasks))
        events = self._store.give_back(delivery)
        if isinstance(events, tuple):
            self._tell(events)
        else:
            Deferred.fromCoroutine(_coroutine(events)).addCallback(self._tell)

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._on_event(event)
