"""One connection to one Redis: commands go out, answers come back in their order."""

from collections.abc import Callable
from typing import Any, Final

import hiredis
import txredisapi  # type: ignore[import-untyped]  # it has no types
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from odingw.config import Node, node_text
from odingw.errors import ConfigError
from odingw.state.redis.errors import RedisAwayError, RedisRefusedError, refusal
from odingw.state.redis.patience import Patience

CONNECT_TIMEOUT: Final = 2.0
"""Seconds that making a connection may take; a SYN that is lost is sent again after one."""

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
    """A connection, made.

    Args:
        protocol: of txredisapi.
        reactor: for the time-out of answers.

    Attributes:
        node: where it leads.
        lost: fires with the reason when it is lost.
    """

    def __init__(self, protocol: Any, node: Node, reactor: Any) -> None:
        self.node = node
        self.lost: Deferred[str] = protocol.lost
        self._protocol = protocol
        self._patience = Patience(reactor, REPLY_TIMEOUT, self._overdue)
        self.lost.addCallback(self._stop)

    def execute(self, *command: str | bytes) -> Deferred[Any]:
        """Carry out a command; texts come back as bytes.

        The Deferred fails with ``RedisAwayError`` if no answer comes, and with
        ``RedisRefusedError`` if Redis refuses.
        """
        try:
            answer: Deferred[Any] = self._protocol.execute_command(*command)
        except txredisapi.ConnectionError:
            return fail(RedisAwayError(self._protocol.why))
        self._patience.asked()
        return answer.addBoth(self._answered)

    def close(self) -> None:
        """Cut the connection."""
        self._protocol.why = self._protocol.why or "closed by this gateway"
        if self._protocol.transport is not None:
            self._protocol.transport.abortConnection()

    def _answered(self, answer: Any) -> Any:
        self._patience.answered()
        if isinstance(answer, Failure):
            error = answer.value
            if isinstance(error, txredisapi.ConnectionError):
                raise RedisAwayError(self._protocol.why) from None
            if isinstance(error, txredisapi.ResponseError):
                raise refusal(str(error)) from None
        return answer

    def _stop(self, reason: str) -> str:
        self._patience.stop()
        return reason

    def _overdue(self) -> None:
        self._protocol.why = f"no response within {REPLY_TIMEOUT:g} seconds"
        self.close()


def check_txredisapi(protocol: Any = txredisapi.RedisProtocol) -> None:
    """See that txredisapi encodes commands by what :class:`CommandProtocol` replaces.

    It promises nothing about that name. Without it, each command would cost twice as much.

    Raises:
        ConfigError: this release does it otherwise.
    """
    code = getattr(getattr(protocol, "execute_command", None), "__code__", None)
    if not hasattr(protocol, "_build_command") or "_build_command" not in getattr(
        code, "co_names", ()
    ):
        raise ConfigError(
            "this txredisapi has no RedisProtocol._build_command to encode commands, which odingw "
            "needs; install a release that this odingw allows (pip install odingw chooses one)"
        )


async def open_link(
    node: Node,
    reactor: Any,
    *,
    tls: Callable[[str], Any] | None = None,
    username: str | None = None,
    password: str | None = None,
    database: int = 0,
) -> Link:
    """Connect, log in, and see that commands are answered.

    Args:
        node: where; a name is looked up.
        reactor: a Twisted reactor.
        tls: given the host, what makes a TLS connection; None: plain TCP.
        username: to log in with; None: the default user.
        password: to log in with; None: do not.
        database: which one to choose.

    Raises:
        RedisAwayError: Redis cannot be reached, or is not trusted.
        RedisRefusedError: it does not let this gateway in, or does not take commands yet.
    """
    host, port = node
    endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT)
    if tls is not None:
        endpoint = wrapClientTLS(tls(host), endpoint)
    try:
        made = await endpoint.connect(_Factory.forProtocol(CommandProtocol))
    except _UNREACHABLE as error:
        raise RedisAwayError(f"cannot connect to {node_text(node)}: {_reason(error)}") from None
    link = Link(made, node, reactor)
    try:
        if password is not None:
            await _log_in(link, username, password)
        if database:
            await link.execute("SELECT", str(database))
        await link.execute("PING")
    except RedisAwayError as error:
        link.close()
        raise RedisAwayError(f"cannot connect to {node_text(node)}: {error}") from None
    except RedisRefusedError as error:
        link.close()
        raise RedisRefusedError(f"{node_text(node)}: {error}", error.kind) from None
    return link


async def _log_in(link: Link, username: str | None, password: str) -> None:
    try:
        await link.execute("AUTH", *(() if username is None else (username,)), password)
    except RedisRefusedError as error:
        # Redis has no word of its own for a password that it does not ask for.
        kind = "auth" if error.kind == "other" else error.kind
        raise RedisRefusedError(str(error), kind) from None


class _Factory(Factory):
    noisy = False


class CommandProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]  # txredisapi has no types
    """The protocol of a :class:`Link`, which says why it ended."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.lost: Deferred[str] = Deferred()
        self.why = ""

    def _build_command(self, *command: Any, **_: object) -> bytes:
        """Encode in C: of a command with thirty arguments, more than half of the whole cost."""
        packed: bytes = hiredis.pack_command(command)
        return packed

    def tryConvertData(self, data: Any) -> Any:  # noqa: N802  -- txredisapi's name
        """Leave texts as they are, without a walk through all of them."""
        return data

    def connectionLost(self, why: Failure) -> None:  # noqa: N802  -- Twisted's name
        """Fail what waits for an answer."""
        self.why = self.why or _reason(why.value)
        super().connectionLost(why)
        self.lost.callback(self.why)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ConnectionDone):
        return "Redis has closed the connection"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1])
    return str(error).rstrip(".") or type(error).__name__
