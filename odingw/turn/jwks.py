"""A JWK set at a URL, kept fresh (RFC 7517, section 5).

A set is fetched at the start and every 10 minutes. A token that none of its keys verifies makes it
be fetched at once, since its issuer may have changed keys, under the same ids too: but never twice
within 30 seconds, however many tokens ask.
"""

from collections import deque
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel

from odingw.errors import OdingwError
from odingw.fetch import Clock
from odingw.turn.jwks_fetch import fetch
from odingw.turn.keys import KeyList, VerifyingKey, jwk_set

REFRESH: Final = 600.0
"""Seconds after a good fetch until the next."""

PAUSE: Final = 30.0
"""Seconds between the beginnings of two fetches, at least; after a failure, until the next."""

MAX_AGE: Final = 24 * 3600.0
"""Seconds for which keys are good that could not be fetched again."""

PROBLEMS_LOGGED: Final = 10
"""How many problems of one set get a log line of their own."""

MOST_WAITING: Final = 1000
"""How many tokens may wait for a fetch; the keys there are decide over others."""

# Who waits for a fetch goes on in one of many steps of the reactor, each about this long (s).
_STEP: Final = 0.005

_Waiting: TypeAlias = tuple[Deferred[float], float]


class JwkSet:
    """The keys of one URL.

    A fetch that fails costs a log line and changes nothing; the keys are given up when none has
    succeeded for a day. A set that is fetched and holds no key that can be used is taken at its
    word: its issuer has withdrawn all keys.

    Args:
        url: where the set is, of ``TurnSettings.jwk_urls``.
        client: as from ``jwks_fetch.jwk_client``.
        clock: for the times above; the reactor.
        log: gets a line when keys change, and for each new problem.

    Attributes:
        name: what the log calls it; no secrets.
        keys: the keys that are good now; another tuple when they have changed.
        fetches_ok: how many fetches have succeeded.
        fetches_failed: how many have failed.
    """

    def __init__(self, url: str, client: HTTPClient, clock: Clock, log: Logger) -> None:
        # A query may hold a secret.
        self.name: Final = urlsplit(url)._replace(query="", fragment="").geturl()
        self.keys: tuple[VerifyingKey, ...] = ()
        self.fetches_ok = 0
        self.fetches_failed = 0
        self._url = url
        self._client = client
        self._clock = clock
        self._log = log
        self._running = False
        self._again = False
        self._fetch: Deferred[bool] | None = None
        self._begun: float | None = None
        self._fetched: float | None = None
        self._next: Any = None
        self._waiting: deque[_Waiting] = deque()
        self._problems: tuple[str, ...] = ()
        self._cause: str | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last good fetch; None: there was none."""
        return None if self._fetched is None else self._clock.seconds() - self._fetched

    def start(self) -> None:
        """Fetch now, and from now on when it is time."""
        was_running, self._running = self._running, True
        if not was_running and self._fetch is None:
            self._begin()

    def stop(self) -> None:
        """Fetch no more; whoever waits goes on with the keys there are."""
        self._running = self._again = False
        self._cancel_next()
        if self._fetch is not None:
            self._fetch.cancel()

    def refresh(self) -> None:
        """Fetch now, however short ago the last fetch was; again if one is under way.

        What that one brings may be older than the change that is asked for.
        """
        if self._running and self._fetch is None:
            self._begin()
        elif self._running:
            self._again = True

    def lookup(self) -> Deferred[float] | None:
        """Ask for keys that may be new.

        Returns:
            None: the keys there are will not change now, or too many wait already. Else, fires
            with the seconds that it took when a fetch has ended, well or not.
        """
        idle = self._fetch is None
        if idle and (not self._running or self._pausing()):
            return None
        if len(self._waiting) >= MOST_WAITING:
            return None
        waiting: Deferred[float] = Deferred()
        self._waiting.append((waiting, self._clock.seconds()))
        if idle:
            self._begin()
        return waiting

    def _pausing(self) -> bool:
        # A clock that is set back must not make the pause longer.
        return self._begun is not None and 0 <= self._clock.seconds() - self._begun < PAUSE

    def _cancel_next(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _begin(self) -> None:
        self._cancel_next()
        self._begun = self._clock.seconds()
        self._fetch = fetching = Deferred.fromCoroutine(self._refresh())
        fetching.addCallback(self._ended)

    async def _refresh(self) -> bool:
        try:
            found = jwk_set(await fetch(self._url, self._client, self._clock), self.name)
        except CancelledError:
            return False
        except Exception as error:
            # A foreign error's text may hold anything.
            self._failed(str(error) if isinstance(error, OdingwError) else type(error).__name__)
            return False
        self._succeeded(found)
        return True

    def _ended(self, succeeded: bool) -> None:
        self._fetch = None
        if self._running:
            delay = 0.0 if self._again else REFRESH if succeeded else PAUSE
            self._next = self._clock.callLater(delay, self._begin)
            self._again = False
        waiting, self._waiting = self._waiting, deque()
        self._resume(waiting)

    def _resume(self, waiting: deque[_Waiting]) -> None:
        """Let those go on who waited; what they do may take a while together."""
        begun = self._clock.seconds()
        while waiting:
            one, since = waiting.popleft()
            one.callback(self._clock.seconds() - since)
            if waiting and self._clock.seconds() - begun >= _STEP:
                self._clock.callLater(0, lambda: self._resume(waiting))
                return

    def _succeeded(self, found: KeyList) -> None:
        self.fetches_ok += 1
        self._fetched = self._clock.seconds()
        if self._cause is not None:
            self._log.info("JWK set {jwk_set} is fetched again", jwk_set=self.name)
            self._cause = None
        self._report(found.problems)
        self._set(found.keys, first=self.fetches_ok == 1)

    def _failed(self, cause: str) -> None:
        self.fetches_failed += 1
        if cause != self._cause:
            self._log.warn(
                "JWK set {jwk_set} was not fetched, {kept}: {cause}",
                jwk_set=self.name,
                kept=f"its last {_keys(len(self.keys))} stay"
                if self.keys
                else "and no key of it is known",
                cause=cause,
            )
            self._cause = cause
        if self.age is not None and self.age >= MAX_AGE:
            self._set(())

    def _set(self, keys: tuple[VerifyingKey, ...], *, first: bool = False) -> None:
        if keys == self.keys and not first:
            return
        self.keys = keys
        self._log.emit(
            LogLevel.info if keys else LogLevel.warn,
            "JWK set {jwk_set} has {keys} that can be used",
            jwk_set=self.name,
            keys=_keys(len(keys)),
        )

    def _report(self, problems: tuple[str, ...]) -> None:
        """Log the problems that are new."""
        new = [problem for problem in problems if problem not in self._problems]
        self._problems = problems
        for problem in new[:PROBLEMS_LOGGED]:
            self._log.warn("{problem}", problem=problem)
        if len(new) > PROBLEMS_LOGGED:
            self._log.warn("{count} more problems", count=len(new) - PROBLEMS_LOGGED)


def _keys(count: int) -> str:
    if count == 1:
        return "one key"
    return f"{count or 'no'} keys"
