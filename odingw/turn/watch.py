"""Which TURN and STUN servers are alive, so that nobody is sent to one that is not."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from odingw.turn.probe import Outcome, Place, Prober
from odingw.turn.uris import TurnUri

_SECURE: Final = ("turns", "stuns")


class ServerHealth(Struct, frozen=True):
    """How one URI fares.

    Attributes:
        uri: its text.
        up: whether it is handed out; True until it has been silent for too many rounds.
        since: when ``up`` last changed or, without a change, the watch began (seconds, the
            reactor's).
        rtt: seconds that the latest answer took (connecting included, looking up the name not);
            None while it is down, and before the first answer.
    """

    uri: str
    up: bool
    since: float
    rtt: float | None


class ServerWatch:
    """Asks every server at every interval with a STUN Binding request.

    UDP is asked twice before it counts as silent. ``turns`` and ``stuns`` URIs are asked over TLS,
    whatever the certificate says. DTLS (``turns`` over UDP) is not watched and always usable: no
    browser speaks it. A server that several URIs name is asked once for all of them. Of a name's
    addresses one that answers is enough, as it is for clients.

    A server that ignores Binding requests (``coturn --no-stun``) looks dead: do not watch it.

    Args:
        uris: what to watch.
        reactor: for sockets, names and timers.
        interval: seconds between the beginnings of two rounds; a round that takes longer delays the
            next one.
        timeout: seconds that a UDP request waits before it is repeated, and then again; streams and
            looking up names get the sum.
        failures: how many silent rounds in a row make a server dead.
        random_bytes: returns that many unpredictable bytes.
        log: gets a line for each change.
        on_change: called after each change.
    """

    def __init__(
        self,
        uris: Sequence[TurnUri],
        reactor: Any,
        *,
        interval: float,
        timeout: float = 1.0,
        failures: int = 2,
        random_bytes: Callable[[int], bytes],
        log: Logger,
        on_change: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._interval = interval
        self._failures = failures
        self._log = log
        self._on_change = on_change
        self._prober = Prober(reactor, timeout, random_bytes)
        self._servers: dict[Place, _Server] = {}
        self._uris: dict[str, _Server] = {}
        for uri in uris:
            place = _place(uri)
            if place is not None:
                server = self._servers.setdefault(place, _Server(place, reactor.seconds()))
                server.uris.append(uri.text)
                self._uris[uri.text] = server
        self._dead: frozenset[str] = frozenset()
        self._loop = LoopingCall(self._next_round)
        self._loop.clock = reactor
        self._round: Deferred[None] = succeed(None)
        self._ended: Deferred[Any] = succeed(None)

    def start(self) -> None:
        """Begin the first round, and from then on one at every interval."""
        for server in self._servers.values():
            server.since = self._reactor.seconds()
        self._ended = self._loop.start(self._interval)

    def stop(self) -> Deferred[None]:
        """End the watch; verdicts stay as they are.

        Returns:
            Fires when its sockets are closed.
        """
        if self._loop.running:
            self._loop.stop()
            self._round.cancel()
        return Deferred.fromCoroutine(self._close())

    def usable(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return those URIs that are not known to be dead, or all if that would leave none.

        Args:
            texts: as `TurnUri.text` has them; those that are not watched count as alive.
        """
        if not self._dead:
            return tuple(texts)
        return tuple(text for text in texts if text not in self._dead) or tuple(texts)

    def health(self) -> list[ServerHealth]:
        """Return how each watched URI fares, in the order they were given in."""
        return [
            ServerHealth(text, server.up, server.since, server.rtt)
            for text, server in self._uris.items()
        ]

    async def _close(self) -> None:
        await self._ended
        await self._prober.close()

    def _next_round(self) -> Deferred[None]:
        asked = [Deferred.fromCoroutine(self._ask(server)) for server in self._servers.values()]
        self._round = DeferredList(asked, consumeErrors=True).addCallback(lambda _: None)
        return self._round

    async def _ask(self, server: "_Server") -> None:
        try:
            outcome = await self._prober.ask(server.place)
            if self._loop.running:
                self._judge(server, outcome)
        except CancelledError:
            pass  # by `stop`
        except Exception:
            self._log.failure("watching {place} failed", place=server.place)

    def _judge(self, server: "_Server", outcome: Outcome) -> None:
        up = outcome.rtt is not None
        server.silent = 0 if up else server.silent + 1
        if up:
            server.rtt = outcome.rtt
        if server.up == up or (server.up and server.silent < self._failures):
            return
        server.up = up
        server.since = self._reactor.seconds()
        if up:
            self._log.info("{odingw_turn} answers again", odingw_turn=" ".join(server.uris))
        else:
            server.rtt = None
            self._log.warn(
                "{odingw_turn} does not answer: {cause}",
                odingw_turn=" ".join(server.uris),
                cause=outcome.cause,
            )
        self._dead = frozenset(text for text, one in self._uris.items() if not one.up)
        if self._on_change is not None:
            self._on_change()


class _Server:
    """What is known of one server."""

    def __init__(self, place: Place, since: float) -> None:
        self.place = place
        self.uris: list[str] = []
        self.up = True
        self.since = since
        self.silent = 0
        self.rtt: float | None = None


def _place(uri: TurnUri) -> Place | None:
    """Where a URI's server is asked; None: it is not."""
    host = uri.host.lower()
    if uri.scheme not in _SECURE:
        return Place(host, uri.port, uri.transport)
    return Place(host, uri.port, "tls") if uri.transport == "tcp" else None
