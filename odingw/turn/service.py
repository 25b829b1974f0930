"""TURN as it is configured now: its settings, and what runs on their behalf."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger

from odingw.config import Turn as TurnConfig
from odingw.http_proxies import HttpProxies
from odingw.rpc.callers import CustomerKey
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.jwks import JwkSet
from odingw.turn.jwks_fetch import jwk_client
from odingw.turn.settings import TurnSettings, from_config
from odingw.turn.turnrest_file import TurnFile
from odingw.turn.uris import parse_uri
from odingw.turn.watch import ServerHealth, ServerWatch

FindCustomerKey = Callable[[str], CustomerKey | None]

_log = Logger("odingw.turn")


class Turn:
    """What serves under one set of settings; replaced as a whole when they change.

    Attributes:
        settings: the settings.
        jwk_sets: the key sets that tokens are checked with, by URL.
        authenticator: judges tokens.
        watch: knows which servers answer; None: they are not watched.
    """

    def __init__(
        self,
        settings: TurnSettings,
        jwk_sets: Mapping[str, JwkSet],
        customer_key: FindCustomerKey,
        watch: ServerWatch | None,
    ) -> None:
        self.settings = settings
        self.jwk_sets = jwk_sets
        self.authenticator = TurnAuthenticator(settings, list(jwk_sets.values()), customer_key)
        self.watch = watch

    def usable(self, uris: Sequence[str]) -> Sequence[str]:
        """Return the URIs whose servers are not known to be down; never none of them."""
        return self.watch.usable(uris) if self.watch else uris


class TurnService:
    """Keeps TURN up to date with its configuration.

    Args:
        config: ``[turn]``; None: TURN is not configured.
        source: name of the configuration file, for messages.
        reactor: for sockets and timers.
        customer_key: finds a customer's access key by its id.

    Attributes:
        current: what serves now; None: TURN is not configured.

    Raises:
        ConfigError: the settings cannot be used.
    """

    def __init__(
        self,
        config: TurnConfig | None,
        source: str,
        reactor: Any,
        customer_key: FindCustomerKey,
    ) -> None:
        self.current: Turn | None = None
        self._source = source
        self._reactor = reactor
        self._customer_key = customer_key
        self._client: Any = None
        self._running = False
        self._config = config
        self._file, settings = self._read(config)
        if settings is not None:
            self._take(settings)

    def start(self) -> None:
        """Begin to fetch key sets and to watch servers."""
        self._running = True
        if self.current is not None:
            for jwk_set in self.current.jwk_sets.values():
                jwk_set.start()
            if self.current.watch is not None:
                self.current.watch.start()

    def stop(self) -> None:
        """End both."""
        self._running = False
        if self.current is not None:
            self._end(self.current, {})

    def reload(self, config: TurnConfig | None) -> None:
        """Take another configuration, or read the TurnRest file again; fetch all key sets.

        Raises:
            ConfigError: the settings cannot be used; those in force stay.
        """
        file, settings = self._read(config)
        known = self.current.jwk_sets if self.current else {}
        self._config, self._file = config, file
        if settings is None:
            self.stop_serving()
        elif self.current is None or settings != self.current.settings:
            self._take(settings)
        # New ones are just being fetched, and those that are gone do nothing any more.
        for jwk_set in known.values():
            jwk_set.refresh()

    def poll(self) -> None:
        """Take the TurnRest file if it has changed.

        Raises:
            ConfigError: it cannot be used; what is in force stays.
        """
        settings = self._file.poll() if self._file is not None else None
        if self._file is not None and settings is not None:
            self._warn(self._file.warnings)
            self._take(settings)

    def stop_serving(self) -> None:
        """Serve TURN no more."""
        if self.current is not None:
            self._end(self.current, {})
            self.current = None

    def customers_changed(self) -> None:
        """Forget what was allowed by keys of customers."""
        if self.current is not None:
            self.current.authenticator.keys_changed()

    def count_of_sets(self, what: str) -> int:
        """Return the sum of a count over the key sets in use."""
        jwk_sets = self.current.jwk_sets.values() if self.current else ()
        return sum(getattr(jwk_set, what) for jwk_set in jwk_sets)

    def health(self) -> Iterable[ServerHealth]:
        """Return how the servers fare, as far as they are watched."""
        watch = self.current.watch if self.current else None
        return watch.health() if watch else ()

    def _read(self, config: TurnConfig | None) -> tuple[TurnFile | None, TurnSettings | None]:
        if config is None:
            return None, None
        if config.config is not None:
            file = TurnFile(config.config, config)
            settings = file.load()
            self._warn(file.warnings)
            return file, settings
        settings, warnings = from_config(config, self._source)
        self._warn(warnings)
        return None, settings

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            _log.warn("{warning}", warning=warning)

    def _take(self, settings: TurnSettings) -> None:
        old = self.current
        kept = old.jwk_sets if old else {}
        jwk_sets = {url: kept.get(url) or self._jwk_set(url) for url in settings.jwk_urls}
        new = Turn(settings, jwk_sets, self._customer_key, self._watch(settings))
        if old is not None:
            self._end(old, jwk_sets)
            _log.info("the TURN settings have changed")
        # Over http a set comes from this host, and directly.
        distant = [url for url in settings.jwk_urls if url.lower().startswith("https:")]
        self._warn(HttpProxies.from_environment().problems(distant))
        self.current = new
        if self._running:
            for url, jwk_set in jwk_sets.items():
                if url not in kept:
                    jwk_set.start()
            if new.watch is not None:
                new.watch.start()

    def _end(self, turn: Turn, kept: Mapping[str, JwkSet]) -> None:
        for url, jwk_set in turn.jwk_sets.items():
            if url not in kept:
                jwk_set.stop()
        if turn.watch is not None:
            turn.watch.stop()

    def _jwk_set(self, url: str) -> JwkSet:
        if self._client is None:
            self._client = jwk_client(self._reactor)
        return JwkSet(url, self._client, self._reactor, _log)

    def _watch(self, settings: TurnSettings) -> ServerWatch | None:
        if not settings.watch_servers:
            return None
        uris = [parse_uri(text, "turn") for text in settings.turn_uris]
        uris += [parse_uri(text, "stun") for text in settings.stun_uris]
        return ServerWatch(
            uris,
            self._reactor,
            interval=settings.watch_interval,
            random_bytes=secrets.token_bytes,
            log=_log,
        )
