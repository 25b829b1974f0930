"""The customers who are let in, kept fresh from the configuration and from a source."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from odingw.config import CustomerSource
from odingw.config import Gateway as GatewayConfig
from odingw.customers.directory import (
    Directory,
    combined,
    directory,
    static_directory,
)
from odingw.customers.function import FunctionSource
from odingw.customers.sources import (
    MAX_BYTES,
    TIMEOUT,
    FileSource,
    Source,
    SourceError,
    UrlSource,
    within,
)
from odingw.errors import ConfigError, OdingwError
from odingw.fetch import Clock, http_client

FETCH_TIMEOUT: Final = 60.0
"""Seconds after which a fetch has failed, whatever its source does."""

PROBLEMS_LOGGED: Final = 20
"""How many problems of one list get a log line of their own."""


class CustomerRefresher:
    """Keeps the directory of customers fresh.

    A fetch that is slow, fails, or brings nothing that can be used costs a log line and changes
    nothing. So long as none has succeeded, the configuration's customers are all there are.

    Args:
        static: the configuration's customers.
        source: where more come from, or None.
        interval: seconds between two fetches.
        clock: for the interval and time limits.
        log: gets a line for each failed refresh and each new problem of a list.
        on_change: called with the new directory whenever customers or keys have changed.
        aside: calls a function that may take a while, in a thread preferably.

    Attributes:
        source: as given.
        interval: as given.
        on_change: as given.
        failures: how many refreshes have failed.
        last_success: when the last good one ended (seconds, the clock's), or None.
    """

    def __init__(
        self,
        static: Directory,
        source: Source | None,
        interval: float,
        clock: Clock,
        log: Logger,
        *,
        on_change: Callable[[Directory], None] | None = None,
        aside: Callable[..., Deferred[Any]] = maybeDeferred,
    ) -> None:
        self.on_change = on_change
        self.failures = 0
        self.last_success: float | None = None
        self._static = static
        self._fetched = Directory()
        self._directory = combined(static, self._fetched)
        self._reported: frozenset[str] = frozenset()
        self.source = source
        self.interval = interval
        self._clock = clock
        self._log = log
        self._aside = aside
        self._fetch: Deferred[bool] | None = None
        self._waiting: list[Deferred[bool]] = []
        self._again = False
        self._stopped = False
        self._timer = LoopingCall(self.refresh)
        self._timer.clock = clock  # type: ignore[assignment]  # an IReactorTime in all but name

    @property
    def directory(self) -> Directory:
        """All customers that are let in now."""
        return self._directory

    @property
    def loaded(self) -> bool:
        """Whether there is no source, or it has been fetched at least once."""
        return self.source is None or self.last_success is not None

    def start(self) -> Deferred[None]:
        """Fetch for the first time, and from then on at every interval.

        Returns:
            Fires when the first fetch has ended, well or not.
        """
        self._stopped = False
        self._report()
        if self.source is None:
            return succeed(None)
        first = self.refresh().addCallback(lambda _: None)
        self._timer.start(self.interval, now=False)
        return first

    def stop(self) -> None:
        """End the periodic fetches and one that is under way."""
        self._stopped = True
        if self._timer.running:
            self._timer.stop()
        if self._fetch is not None:
            self._fetch.cancel()

    def set_static(self, static: Directory) -> None:
        """Take other customers of the configuration."""
        self._static = static
        self._update()

    def refresh(self, *, again: bool = False) -> Deferred[bool]:
        """Fetch now, or join the fetch that is under way.

        Args:
            again: fetch once more after that one, which may bring an older list than there is now.

        Returns:
            Whether it succeeded; it never fails otherwise.
        """
        if self.source is None:
            return succeed(True)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._begin(self.source)
        else:
            self._again = self._again or again
        return waiting

    def poll(self) -> Deferred[None]:
        """Look whether the source's file has changed, and fetch it if so."""
        return Deferred.fromCoroutine(self._poll())

    async def _poll(self) -> None:
        # A fetch that is under way reads what is there now.
        if isinstance(self.source, FileSource) and not self._waiting:
            with suppress(SourceError):
                if await self.source.changed() and not self._stopped:
                    await self.refresh()

    def _begin(self, source: Source) -> None:
        self._again = False
        self._fetch = fetch = Deferred.fromCoroutine(self._refresh(source))
        fetch.addCallback(self._ended, source)

    def _ended(self, outcome: bool, source: Source) -> None:
        if self._again and not self._stopped:
            self._begin(source)
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(outcome)

    async def _refresh(self, source: Source) -> bool:
        try:
            documents = await within(FETCH_TIMEOUT, self._clock, source.fetch())
            fetched: Directory = await self._aside(_usable, documents)
        except (Exception, SystemExit) as error:
            if self._stopped:
                return False
            self.failures += 1
            self._log.warn(
                "customers were not refreshed from {source}, the last good list stays: {cause}",
                source=source.name,
                # A foreign error's text may hold anything.
                cause=str(error) if isinstance(error, OdingwError) else type(error).__name__,
            )
            return False
        self._fetched = fetched
        self.last_success = self._clock.seconds()
        self._update()
        return True

    def _update(self) -> None:
        before = self._directory
        after = self._directory = combined(self._static, self._fetched)
        self._report()
        if (before.keys, before.customers) == (after.keys, after.customers):
            return
        self._log.info(
            "{customers} customers with {keys} access keys are let in",
            customers=len(after.customers),
            keys=len(after.keys),
        )
        if self.on_change is not None:
            try:
                self.on_change(after)
            except Exception:
                self._log.failure("telling of changed customers failed")

    def _report(self) -> None:
        """Log the problems that are new."""
        problems = dict.fromkeys(self._directory.problems)
        new = [problem for problem in problems if problem not in self._reported]
        self._reported = frozenset(problems)
        for problem in new[:PROBLEMS_LOGGED]:
            self._log.warn("{problem}", problem=problem)
        if len(new) > PROBLEMS_LOGGED:
            self._log.warn("{count} more problems", count=len(new) - PROBLEMS_LOGGED)


def refresher(gateway: GatewayConfig, reactor: Any) -> CustomerRefresher:
    """Make the refresher that the configuration asks for.

    Raises:
        ConfigError: the source's function cannot be loaded.
    """
    config = gateway.customer_source
    source = None if config is None else _source(config, reactor)
    interval = 0.0 if config is None else config.interval
    static = static_directory(gateway.customers)
    return CustomerRefresher(
        static, source, interval, reactor, Logger("odingw"), aside=deferToThread
    )


def _source(config: CustomerSource, reactor: Any) -> Source:
    if config.url is not None:
        client = http_client(reactor, seconds=TIMEOUT, max_bytes=MAX_BYTES, http_anywhere=True)
        return UrlSource(config.url, client, reactor, aside=deferToThread)
    if config.function is not None:
        return FunctionSource(config.function, reactor)
    if config.file is not None:
        return FileSource(config.file)
    raise ConfigError("gateway.customer_source: none of url, file and function is given")


def _usable(documents: Sequence[object]) -> Directory:
    """The directory of a fetched list.

    Raises:
        SourceError: nobody is left in it.
    """
    if not documents:
        raise SourceError("the list is empty")
    fetched = directory(documents)
    if not fetched.customers:
        raise SourceError(f"no customer of the list can be used; {fetched.problems[0]}")
    return fetched
