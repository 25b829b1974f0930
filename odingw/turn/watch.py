"""Which TURN and STUN servers are alive, so that nobody is sent to one that is not."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from odingw.turn.certificates import Certificate
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
        certificate: what the latest answer over TLS showed; None: there was none.
    """

    uri: str
    up: bool
    since: float
    rtt: float | None
    certificate: Certificate | None = None


class ServerWatch:
    """Asks every server at every interval with a STUN Binding request.

    UDP is asked twice before it counts as silent. ``turns`` and ``stuns`` URIs are asked over TLS,
    whatever the certificate says; one that browsers refuse is told to the log, once. DTLS
    (``turns`` over UDP) is not watched and always usable: no browser speaks it. A server that
    several URIs name is asked once for all of them. Of a name's addresses one that answers is
    enough, as it is for clients.

    A TURN server that ignores Binding requests but answers to Allocate is alive
    (``coturn --no-stun``); the ``stun`` URIs that name it are not.

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
        self._places: dict[Place, dict[bool, _Server]] = {}
        self._uris: dict[str, _Server] = {}
        for uri in uris:
            place, turn = _place(uri), uri.scheme.startswith("turn")
            if place is not None:
                servers = self._places.setdefault(place, {})
                server = servers.setdefault(turn, _Server(reactor.seconds(), turn=turn))
                server.uris.append(uri.text)
                self._uris[uri.text] = server
        self._dead: frozenset[str] = frozenset()
        self._loop = LoopingCall(self._next_round)
        self._loop.clock = reactor
        self._round: Deferred[None] = succeed(None)
        self._ended: Deferred[Any] = succeed(None)

    def start(self) -> None:
        """Begin the first round, and from then on one at every interval."""
        for server in self._uris.values():
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
            ServerHealth(text, server.up, server.since, server.rtt, server.certificate)
            for text, server in self._uris.items()
        ]

    async def _close(self) -> None:
        await self._ended
        await self._prober.close()

    def _next_round(self) -> Deferred[None]:
        asked = [Deferred.fromCoroutine(self._ask(place)) for place in self._places]
        self._round = DeferredList(asked, consumeErrors=True).addCallback(lambda _: None)
        return self._round

    async def _ask(self, place: Place) -> None:
        servers = self._places[place]
        try:
            outcome = await self._prober.ask(place, turn=True in servers)
            if self._loop.running:
                self._judge(list(servers.values()), outcome)
        except CancelledError:
            pass  # by `stop`
        except Exception:
            self._log.failure("watching {place} failed", place=place)

    def _judge(self, servers: "list[_Server]", outcome: Outcome) -> None:
        """Take in what came of asking at a place."""
        if outcome.certificate is not None:
            self._judge_certificate(servers, outcome.certificate)
        now = self._reactor.seconds()
        changed = [one for one in servers if one.changes(outcome, now, self._failures)]
        if not changed:
            return
        names = " ".join(uri for server in changed for uri in server.uris)
        if changed[0].up:
            self._log.info("{odingw_turn} answers again", odingw_turn=names)
        else:
            cause = outcome.cause or "it ignores Binding requests"
            self._log.warn("{odingw_turn} does not answer: {cause}", odingw_turn=names, cause=cause)
        self._dead = frozenset(text for text, one in self._uris.items() if not one.up)
        if self._on_change is not None:
            self._on_change()

    def _judge_certificate(self, servers: "list[_Server]", certificate: Certificate) -> None:
        told = servers[0].certificates_told
        for server in servers:
            server.certificate = certificate
        if certificate.refusal and certificate not in told:
            told.add(certificate)
            self._log.warn(
                "{odingw_turn}: browsers refuse its certificate, which ends on {day}: {cause}",
                odingw_turn=" ".join(uri for server in servers for uri in server.uris),
                day=certificate.last_day,
                cause=certificate.refusal,
            )


class _Server:
    """What is known of one server, as what some of its URIs want of it: TURN, or STUN alone."""

    def __init__(self, since: float, *, turn: bool) -> None:
        self.uris: list[str] = []
        self.up = True
        self.since = since
        self.rtt: float | None = None
        self.certificate: Certificate | None = None
        self.certificates_told: set[Certificate] = set()
        self._turn = turn
        self._silent = 0

    def changes(self, outcome: Outcome, now: float, failures: int) -> bool:
        """Take in what came of asking; tell whether it is up now and was not, or the reverse."""
        up = outcome.rtt is not None and (self._turn or outcome.binds)
        self._silent = 0 if up else self._silent + 1
        if up:
            self.rtt = outcome.rtt
        if self.up == up or (self.up and self._silent < failures):
            return False
        self.up, self.since = up, now
        if not up:
            self.rtt = None
        return True


def _place(uri: TurnUri) -> Place | None:
    """Where a URI's server is asked; None: it is not."""
    host = uri.host.lower()
    if uri.scheme not in _SECURE:
        return Place(host, uri.port, uri.transport)
    return Place(host, uri.port, "tls") if uri.transport == "tcp" else None
