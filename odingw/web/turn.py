"""``/turn``: from a JWT to TURN credentials, over HTTP."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.config import Trusted
from odingw.errors import INVALID_PARAMS, UNAVAILABLE, RpcError, TokenError, TokenFault
from odingw.ops.logs import once, seldom
from odingw.ops.metrics import Metrics
from odingw.rpc.callers import check_length, missing_authorization, unauthorized
from odingw.rpc.jsonrpc import Reply, error_reply
from odingw.turn.claims import Claims, user_of
from odingw.turn.credentials import issue, reply_body
from odingw.turn.origins import ANY_ORIGIN
from odingw.turn.service import Turn
from odingw.web.address import client_address
from odingw.web.app import not_allowed
from odingw.web.channel import GatewayRequest
from odingw.web.rate import RateLimit, check_rate
from odingw.web.replies import prepare

_PATHS: Final = ("/turn", "/turn/")
_BAD_REQUEST: Final = 400
_OUTCOMES: Final = {200: "success", 401: "rejected"}

_log = Logger("odingw.turn")


class TurnHttp:
    """Hands out TURN credentials.

    Args:
        current: returns the settings in force and what hangs on them; None: TURN is not configured.
        metrics: counts.
        now: the gateway's steady clock.
        random_name: makes a name for users who have none.
        token_limit: how many characters a token may have.
        per_address: requests a second of one client address.
        trusted: proxies that are believed about addresses.
    """

    def __init__(
        self,
        current: Callable[[], Turn | None],
        metrics: Metrics,
        now: Callable[[], float],
        random_name: Callable[[], str],
        *,
        token_limit: int,
        per_address: RateLimit,
        trusted: Sequence[Trusted],
    ) -> None:
        self._current = current
        self._metrics = metrics
        self._now = now
        self._random_name = random_name
        self._token_limit = token_limit
        self._per_address = per_address
        self._trusted = trusted

        def warn(text: str) -> None:
            _log.warn("a token for TURN is refused: {text}", text=text)

        self._warn = once(warn)
        self._unknown_key = seldom(warn, now)

    def add_to(self, app: Klein) -> None:
        """Add the routes: ``/turn``, and the draft's query at the root."""
        for path in _PATHS:
            self._add(app, path)

        @app.route("/", methods=["GET"], endpoint="turn /", strict_slashes=True)
        def root(request: GatewayRequest) -> bytes | Deferred[bytes]:
            # draft-uberti-behave-turn-rest-00, section 2.1
            if _argument(request, b"service") != "turn":
                return prepare(
                    request, error_reply(not_allowed(("POST", "OPTIONS"))), internal=False
                )
            return self._show(request)

    def _add(self, app: Klein, path: str) -> None:
        @app.route(path, methods=["GET", "POST"], endpoint=f"turn {path}", strict_slashes=True)
        def get(request: GatewayRequest) -> bytes | Deferred[bytes]:
            return self._show(request)

        @app.route(path, methods=["OPTIONS"], endpoint=f"OPTIONS {path}", strict_slashes=True)
        def options(request: GatewayRequest) -> bytes:
            return prepare(request, Reply(200, None, self._cors(request)), internal=True)

    def _show(self, request: GatewayRequest) -> bytes | Deferred[bytes]:
        answer = self.handle(request)
        if isinstance(answer, Reply):
            return prepare(request, answer, internal=True)
        return answer.addCallback(lambda reply: prepare(request, reply, internal=True))

    def handle(self, request: GatewayRequest) -> Reply | Deferred[Reply]:
        """Answer a request for credentials; what is wrong with it becomes a reply too.

        The reply has CORS headers of its own.
        """
        began = time.perf_counter()
        try:
            turn = self._turn()
            if self._per_address.active:
                who = client_address(request, self._trusted)
                check_rate(self._per_address, who, self._now())
            claims = self._claims(request, turn)
            if isinstance(claims, Deferred):
                return (
                    claims.addCallback(lambda found: self._issue(request, turn, found))
                    .addErrback(self._refuse)
                    .addCallback(lambda reply: self._done(request, reply, began))
                )
            reply = self._issue(request, turn, claims)
        except (RpcError, TokenError) as error:
            reply = self._refuse(Failure(error))
        return self._done(request, reply, began)

    def _turn(self) -> Turn:
        turn = self._current()
        if turn is None:
            raise RpcError(UNAVAILABLE, "TURN is not configured")
        return turn

    def _claims(self, request: GatewayRequest, turn: Turn) -> Claims | Deferred[Claims]:
        if turn.settings.ignore_jwt:
            return {}
        token = _token(request)
        check_length(token, self._token_limit)
        return turn.authenticator.authenticate(token, time.time())

    def _issue(self, request: GatewayRequest, turn: Turn, claims: Claims) -> Reply:
        settings = turn.settings
        user = None if settings.forced_user else self._user(request, settings.user_claim, claims)
        if not settings.ignore_jwt:
            self._metrics.verified("ok")
        try:
            ttl = _seconds(request)
            credentials = issue(settings, user, int(time.time()), ttl, self._random_name)
        except ValueError as error:
            return _bad_request(str(error))
        self._metrics.issued()
        body = reply_body(
            settings, credentials, turn.usable(settings.turn_uris), turn.usable(settings.stun_uris)
        )
        return Reply(200, body)

    def _user(self, request: GatewayRequest, user_claim: str | None, claims: Claims) -> str | None:
        """Return the user that the claim names; the draft's ``username`` counts only without one.

        Raises:
            TokenError: the claim cannot name a user.
        """
        try:
            named = user_of(claims, user_claim) if user_claim else None
        except TokenError as error:
            self._warn(error.message)
            raise
        if named is None and _argument(request, b"service") == "turn":
            return _argument(request, b"username")
        return named

    def _refuse(self, failure: Failure) -> Reply:
        error = failure.value
        if isinstance(error, TokenError):
            self._metrics.verified(str(error.fault))
            if error.fault is TokenFault.UNKNOWN_KEY:
                self._unknown_key(error.detail or error.message)
            error = unauthorized(error)
        if not isinstance(error, RpcError):
            failure.raiseException()
        return error_reply(error)

    def _done(self, request: GatewayRequest, reply: Reply, began: float) -> Reply:
        outcome = _OUTCOMES.get(reply.status, "failure")
        self._metrics.call("turn", "credentials", outcome)
        self._metrics.seconds("turn", time.perf_counter() - began)
        cors = self._cors(request)
        headers = {**reply.headers, **cors} if reply.headers else cors
        return Reply(reply.status, reply.body, headers)

    def _cors(self, request: GatewayRequest) -> dict[str, str]:
        turn = self._current()
        origins = turn.settings.allowed_origins if turn else ANY_ORIGIN
        if len(origins) == 1:
            return _cors(origins[0], varies=origins != ANY_ORIGIN)
        asking = request.getHeader("origin")
        return _cors(asking if asking in origins else None, varies=True)


@lru_cache(maxsize=128)
def _cors(origin: str | None, *, varies: bool) -> dict[str, str]:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "authorization",
    }
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
    return {**headers, "Vary": "Origin"} if varies else headers


def _argument(request: GatewayRequest, name: bytes) -> str | None:
    values = request.args.get(name)
    return values[0].decode("utf-8", "replace") if values else None


def _token(request: GatewayRequest) -> str:
    """Return the JWT of the header, else of the query (``jwt``, or the draft's ``key``)."""
    headers = request.requestHeaders.getRawHeaders(b"authorization") or []
    if headers:
        scheme, space, token = headers[0].decode("latin-1").strip().partition(" ")
        if not space:
            return scheme
        if len(headers) == 1 and scheme.lower() == "bearer":
            return token.strip(" ")
        raise missing_authorization()
    token = _argument(request, b"jwt") or ""
    if not token and _argument(request, b"service") == "turn":
        token = _argument(request, b"key") or ""
    if not token:
        raise missing_authorization()
    return token


def _seconds(request: GatewayRequest) -> int | None:
    text = _argument(request, b"ttl")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("ttl: expected a whole number of seconds")
    return int(text)


def _bad_request(detail: str) -> Reply:
    error = RpcError(INVALID_PARAMS, "Invalid params", {"detail": detail})
    return Reply(_BAD_REQUEST, error_reply(error).body)
