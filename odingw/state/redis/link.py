"""Connections to Redis: one for commands, one on which it tells what others do."""

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import txredisapi  # type: ignore[import-untyped]  # it has no types
from OpenSSL import SSL
from twisted.internet import ssl as tls
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from odingw.config import StateAddress
from odingw.errors import ConfigError
from odingw.state.redis.exchange import RedisAwayError
from odingw.state.redis.patience import PatientCall

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that making a connection may take."""

_END: Final = b"-----END CERTIFICATE-----"

REPLY_TIMEOUT: Final = 2.0
"""Seconds that Redis may take to answer; one that takes longer counts as away.

Those in which this process stood still itself do not count.
"""


_UNREACHABLE: Final = (
    ConnectError,
    ConnectionLost,
    ConnectTimeoutError,
    DNSLookupError,
    OSError,
    SSL.Error,
)


class Link:
    """Both connections, made.

    Args:
        commands: for commands.
        told: for what is published.
        reactor: for the time-out that txredisapi does not have.

    Attributes:
        lost: fires with the reason when either is lost.
    """

    def __init__(self, commands: Any, told: Any, reactor: Any) -> None:
        self._reactor = reactor
        self._commands = commands
        self._told = told
        self.lost: Deferred[str] = Deferred()
        for protocol in (commands, told):
            protocol.on_lost = self._lost

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command; texts come back as bytes.

        The Deferred fails with ``RedisAwayError`` if no answer comes, and with
        ``txredisapi.ResponseError`` if Redis refuses.
        """
        try:
            answer: Deferred[Any] = self._commands.execute_command(*command)
        except txredisapi.ConnectionError as error:
            return Deferred.fromCoroutine(_away(str(error)))
        return answer.addErrback(_translate)

    def subscribe(
        self, channels: Iterable[str], on_message: Callable[[str, bytes], None]
    ) -> Deferred[Any]:
        """Hear what is published on channels."""
        self._told.on_message = on_message
        heard: Deferred[Any] = self._told.subscribe(list(channels))
        late = PatientCall(self._reactor, REPLY_TIMEOUT, self.close)

        def in_time(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        return heard.addBoth(in_time).addErrback(_translate)

    def close(self) -> None:
        """Cut both connections."""
        for protocol in (self._commands, self._told):
            if protocol.transport is not None:
                protocol.transport.abortConnection()

    def _lost(self, reason: str) -> None:
        if not self.lost.called:
            self.lost.callback(reason)
            self.close()


class Connector:
    """Makes connections to the Redis that the configuration names; its name is looked up anew.

    Args:
        address: host, port, database and credentials.
        ca_file: PEM file of the authorities that are trusted; None: those of the system.
        reactor: a Twisted reactor.

    Raises:
        ConfigError: the file, or this release of txredisapi, cannot be used.
    """

    def __init__(self, address: StateAddress, ca_file: Path | None, reactor: Any) -> None:
        check_txredisapi()
        self._address = address
        self._reactor = reactor
        self._trust = _trust(ca_file) if address.scheme == "rediss" else None

    async def __call__(self) -> Link:
        """Connect.

        Raises:
            RedisAwayError: Redis cannot be reached, or does not let this gateway in.
        """
        commands = await self._open(_Commands)
        try:
            told = await self._open(_Told)
        except RedisAwayError:
            commands.transport.abortConnection()
            raise
        return Link(commands, told, self._reactor)

    async def _open(self, kind: type[Any]) -> Any:
        host, port = self._address.host or "", self._address.port or 0
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        if self._trust is not None:
            options = tls.optionsForClientTLS(host, trustRoot=self._trust)
            endpoint = wrapClientTLS(options, endpoint)
        try:
            protocol = await endpoint.connect(_Factory(kind, self._reactor))
        except _UNREACHABLE as error:
            raise RedisAwayError(f"cannot connect: {error}") from None
        try:
            await self._enter(protocol)
        except txredisapi.RedisError as error:
            protocol.transport.abortConnection()
            reason = "cannot connect" if protocol.why else "not let in"
            raise RedisAwayError(f"{reason}: {protocol.why or error}") from None
        return protocol

    async def _enter(self, protocol: Any) -> None:
        address = self._address
        if address.password is not None:
            await protocol.auth(address.password, address.username)
        if address.database:
            await protocol.select(address.database)
        await protocol.ping()


class _Factory(Factory):
    noisy = False

    def __init__(self, kind: type[Any], reactor: Any) -> None:
        self._kind = kind
        self._reactor = reactor

    def buildProtocol(self, addr: object) -> Any:  # noqa: N802  -- Twisted's name
        protocol = self._kind(charset=None, convertNumbers=False, replyTimeout=REPLY_TIMEOUT)
        protocol.reactor = self._reactor
        return protocol


def check_txredisapi(protocol: Any = txredisapi.RedisProtocol) -> None:
    """See that txredisapi measures its time-outs with what :class:`_Patient` takes the place of.

    It promises nothing about that. Without it, Redis would count as away whenever this process had
    stood still.

    Raises:
        ConfigError: this release does it otherwise.
    """
    code = getattr(getattr(protocol, "execute_command", None), "__code__", None)
    if not hasattr(protocol, "callLater") or "callLater" not in getattr(code, "co_names", ()):
        raise ConfigError(
            "this txredisapi has no RedisProtocol.callLater for its time-outs, which odingw needs; "
            "install a release that this odingw allows (pip install odingw chooses one)"
        )


class _Patient:
    reactor: Any = None

    def callLater(self, delay: float, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: N802  -- txredisapi's name
        """Call later; what it waits longer for than a moment is an answer's time-out."""
        if delay:
            return PatientCall(self.reactor, delay, function)
        return self.reactor.callLater(delay, function, *arguments)


class _Commands(_Patient, txredisapi.RedisProtocol):  # type: ignore[misc]  # txredisapi has no types
    on_lost: Callable[[str], None] = staticmethod(lambda _: None)
    why = ""

    def connectionLost(self, why: Failure) -> None:  # noqa: N802  -- Twisted's name
        self.why = why.getErrorMessage()
        super().connectionLost(why)
        self.on_lost(self.why)


class _Told(_Patient, txredisapi.SubscriberProtocol):  # type: ignore[misc]  # likewise
    on_lost: Callable[[str], None] = staticmethod(lambda _: None)
    why = ""
    on_message: Callable[[str, bytes], None] = staticmethod(lambda _, __: None)

    def messageReceived(self, pattern: object, channel: bytes, message: bytes) -> None:  # noqa: N802  -- txredisapi's name
        self.on_message(channel.decode(), message)

    def connectionLost(self, why: Failure) -> None:  # noqa: N802  -- Twisted's name
        self.why = why.getErrorMessage()
        super().connectionLost(why)
        self.on_lost(self.why)


async def _away(reason: str) -> Any:
    raise RedisAwayError(reason)


def _translate(failure: Failure) -> Any:
    error = failure.value
    if isinstance(error, txredisapi.ConnectionError):
        raise RedisAwayError(str(error)) from None
    return failure


def _trust(ca_file: Path | None) -> Any:
    if ca_file is None:
        return tls.platformTrust()  # type: ignore[no-untyped-call]  # Twisted has no types here
    try:
        data = ca_file.read_bytes()
        found = [
            tls.Certificate.loadPEM(part[part.index(b"-----BEGIN") :] + _END + b"\n")
            for part in data.split(_END)[:-1]
        ]
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(f"state.ca_file: cannot use {ca_file}: {error}") from None
    if not found:
        raise ConfigError(f"state.ca_file: {ca_file} holds no certificate in PEM")
    return tls.trustRootFromCertificates(found)  # type: ignore[no-untyped-call]  # likewise
