"""What Prometheus scrapes. No label has values that a caller chooses."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from odingw import __version__
from odingw.grid.store import Store
from odingw.grid.usage import DEMO_PREFIX
from odingw.ops.tally import Tally, Times
from odingw.rpc.callers import Licence

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

_LARGE_PAGE: Final = 256 * 1024
"""Bytes of a page from which on it is kept; a smaller one is always of this moment."""

_PAGE_AGE: Final = 1.0
"""Seconds for which a large page is good."""

# A series more for each counter, which says when the process first counted something.
disable_created_metrics()


class Metrics:
    """Counts what happens, and shows it.

    Args:
        now: the steady clock, for ages.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._now = now
        self._pages: dict[str, tuple[float, bytes]] = {}
        self._requests = self._counter(
            "requests", "Calls by API, method and outcome.", ("api", "method", "outcome")
        )
        self._seconds = Times(
            "odingw_request_seconds", "Time from the whole request to its reply.", "api", _BUCKETS
        )
        self.registry.register(self._seconds)
        self._verifications = self._counter(
            "jwt_verifications", "Tokens verified, by outcome.", ("outcome",)
        )
        self._placements = self._counter("placements", "Connects granted, by kind.", ("kind",))
        self._refusals = self._counter("refusals", "Calls that a rule refused.", ("reason",))
        self._compat = self._counter(
            "compat_accepted", "Calls that strict settings would refuse, by rule.", ("rule",)
        )
        self._tasks = self._counter(
            "tasks", "Tasks for servers, by what became of them.", ("fate",)
        )
        self._store_seconds = Histogram(
            "odingw_store_seconds",
            "Time that the state store took to store a group of changes.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._store_errors = self._counter(
            "store_errors", "What the state store could not do, by kind of reason.", ("kind",)
        )
        self._store_errors.add("journal", count=0)
        self._store_clock = Gauge(
            "odingw_store_clock_difference_seconds",
            "Seconds that the clock of Redis is ahead of this gateway's.",
            registry=self.registry,
        )
        self._files = self._counter("client_files", "Requests for client files.", ("file",))
        self._issued = self._counter("turn_credentials_issued", "TURN credentials handed out.", ())
        self._issued.add(count=0)
        self._wrong_passwords = self._counter(
            "basic_auth_refused", "HTTP Basic credentials that were wrong, by realm.", ("realm",)
        )
        for realm in ("internal", "admin"):
            self._wrong_passwords.add(realm, count=0)
        Info("odingw_build", "The program.", registry=self.registry).info({"version": __version__})
        for rule in ("leeway", "require_expiry", "require_subject", "room_match"):
            self._compat.add(rule, count=0)
        # Prometheus does not see the first rise of a series that was not there before.
        for fate in ("queued", "sent", "delivered", "returned", "dropped"):
            self._tasks.add(fate, count=0)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def call(self, api: str, method: str, outcome: str) -> None:
        """Count a call of a known method."""
        self._requests.add(api, method, outcome)

    def call_counts(self) -> list[tuple[str, int, int, int]]:
        """Return name, and counts of success, failure and rejection, of every method called."""
        counts: dict[str, dict[str, int]] = {}
        for labels, count in self._requests.counts():
            of_method = counts.setdefault(labels["method"], {})
            outcome = labels["outcome"]
            of_method[outcome] = of_method.get(outcome, 0) + count
        return [
            (name, found.get("success", 0), found.get("failure", 0), found.get("rejected", 0))
            for name, found in sorted(counts.items())
        ]

    def requests(self) -> list[tuple[str, str, str, int]]:
        """Return API, method and outcome of all calls until now, and how many there were."""
        return [
            (labels["api"], labels["method"], labels["outcome"], count)
            for labels, count in self._requests.counts()
        ]

    def refusals(self) -> dict[str, int]:
        """Return how many calls each reason has refused."""
        return {labels["reason"]: count for labels, count in self._refusals.counts()}

    def rejected_tokens(self) -> int:
        """Return how many tokens had a fault."""
        found = self._verifications.counts()
        return sum(count for labels, count in found if labels["outcome"] != "ok")

    def credentials_issued(self) -> int:
        """Return how many TURN credentials have been handed out."""
        return sum(count for _, count in self._issued.counts())

    def seconds(self, api: str, seconds: float) -> None:
        """Take in how long a request took."""
        self._seconds.observe(api, seconds)

    def verified(self, outcome: str) -> None:
        """Count a token: ``ok`` or the kind of fault."""
        self._verifications.add(outcome)

    def placed(self, kind: str) -> None:
        """Count a Connect that was granted."""
        self._placements.add(kind)

    def issued(self) -> None:
        """Count TURN credentials that were handed out."""
        self._issued.add()

    def store_failed(self, kind: str, count: int = 1) -> None:
        """Count what the store could not do; a count of 0 makes the series appear."""
        self._store_errors.add(kind, count=count)

    def store_clock(self, difference: float) -> None:
        """Take in how many seconds the store's clock is ahead."""
        self._store_clock.set(difference)

    def stored(self, seconds: float | None) -> None:
        """Take in how long storing a group of changes took; None: the journal failed."""
        if seconds is None:
            self.store_failed("journal")
        else:
            self._store_seconds.observe(seconds)

    def wrong_password(self, realm: str) -> None:
        """Count HTTP Basic credentials that were wrong: ``internal`` or ``admin``."""
        self._wrong_passwords.add(realm)

    def client_file(self, name: str) -> None:
        """Count a request for a file of the JavaScript clients."""
        self._files.add(name)

    def refused(self, reason: str) -> None:
        """Count a call that a rule refused."""
        self._refusals.add(reason)

    def relaxed(self, rule: str) -> None:
        """Count a call that strict settings would refuse."""
        self._compat.add(rule)

    def tasks(self, fate: str, count: int = 1) -> None:
        """Count tasks: ``queued``, ``sent``, ``delivered``, ``returned`` or ``dropped``."""
        self._tasks.add(fate, count=count)

    def watch(self, store: Store, is_customer: Callable[[str], bool]) -> None:
        """Show what a store holds; the usage of those who are no customers is one series."""
        self.registry.register(_StoreCollector(store, is_customer, self._now))

    def watch_limits(self, read: Callable[[], Iterable[Licence]]) -> None:
        """Show what customers' licences allow."""
        self.registry.register(_LimitCollector(read))

    def watch_gauges(
        self, name: str, text: str, label: str, read: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        """Show numbers that somebody else keeps, by the value of one label."""
        self.registry.register(_GaugesCollector(f"odingw_{name}", text, label, read))

    def watch_number(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that somebody else keeps."""
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        self.registry.register(_NumberCollector(kind, f"odingw_{name}", text, read))

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type.

        A large page may be up to a second old.

        Args:
            accept: the ``Accept`` header of the scraper, which chooses the format.
        """
        encode, content_type = choose_encoder(accept)
        now = self._now()
        made, page = self._pages.get(content_type, (now - _PAGE_AGE, b""))
        if now - made < _PAGE_AGE:
            return page, content_type
        page = encode(self.registry)
        # One of thousands of customers takes a while to make, however often it is asked for.
        if len(page) > _LARGE_PAGE:
            self._pages[content_type] = (now, page)
        return page, content_type

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Tally:
        tally = Tally(f"odingw_{name}", text, labels)
        self.registry.register(tally)
        return tally


class _NumberCollector(Collector):
    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        text: str,
        read: Callable[[], float],
    ) -> None:
        self._kind = kind
        self._name = name
        self._text = text
        self._read = read

    def collect(self) -> Iterable[Metric]:
        yield self._kind(self._name, self._text, value=self._read())


class _GaugesCollector(Collector):
    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        read: Callable[[], Iterable[tuple[str, float]]],
    ) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=(self._label,))
        for value, number in self._read():
            family.add_metric((value,), number)
        yield family


class _LimitCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[Licence]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        peers = GaugeMetricFamily(
            "odingw_customer_peers_limit", "Peers that a licence allows.", labels=("customer",)
        )
        rooms = GaugeMetricFamily(
            "odingw_customer_rooms_limit", "Rooms that a licence allows.", labels=("customer",)
        )
        for licence in self._read():
            for family, limit in ((peers, licence.max_peers), (rooms, licence.max_rooms)):
                if limit is not None:
                    family.add_metric((licence.id,), limit)
        yield peers
        yield rooms


class _StoreCollector(Collector):
    def __init__(
        self, store: Store, is_customer: Callable[[str], bool], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._is_customer = is_customer
        self._now = now

    def collect(self) -> Iterator[Metric]:
        labels = ("pool", "server")
        rooms = GaugeMetricFamily("odingw_server_rooms", "Rooms by server.", labels=labels)
        peers = GaugeMetricFamily("odingw_server_peers", "Peers by server.", labels=labels)
        load = GaugeMetricFamily("odingw_server_load_ratio", "Reported load.", labels=labels)
        reserved = GaugeMetricFamily(
            "odingw_server_reservations", "Clients under way, by server.", labels=labels
        )
        tasks = GaugeMetricFamily("odingw_server_tasks", "Tasks queued by server.", labels=labels)
        age = GaugeMetricFamily(
            "odingw_server_report_age_seconds", "Age of the last report.", labels=labels
        )
        up = GaugeMetricFamily(
            "odingw_server_state", "1 in the state that a server is in.", labels=(*labels, "state")
        )
        now = self._now()
        for pool, grid in self._store.pools():
            for server in grid.servers():
                key = (pool, server.address)
                rooms.add_metric(key, server.rooms)
                peers.add_metric(key, server.peers)
                load.add_metric(key, server.load)
                reserved.add_metric(key, server.reservations)
                tasks.add_metric(key, server.tasks)
                age.add_metric(key, max(0.0, now - server.last_seen))
                states = (
                    ("disabled", server.disabled),
                    ("unheard", server.unheard),
                    ("drained", server.drained),
                    ("live", True),
                )
                state = next(name for name, holds in states if holds)
                up.add_metric((*key, state), 1)
        yield from (rooms, peers, load, reserved, tasks, age, up)
        yield from self._usage()

    def _usage(self) -> Iterator[Metric]:
        totals: dict[str, list[int]] = {}
        for usage in self._store.usage():
            name = usage.customer
            if not self._is_customer(name):
                name = "demo" if name.startswith(DEMO_PREFIX) else "other"
            total = totals.setdefault(name, [0, 0, 0])
            total[0] += usage.peers
            total[1] += usage.reservations
            total[2] += usage.rooms
        for index, (kind, text) in enumerate(
            (
                ("peers", "Peers by customer."),
                ("reservations", "Clients under way, by customer."),
                ("rooms", "Rooms by customer."),
            )
        ):
            family = GaugeMetricFamily(f"odingw_customer_{kind}", text, labels=("customer",))
            for name, total in totals.items():
                family.add_metric((name,), total[index])
            yield family
