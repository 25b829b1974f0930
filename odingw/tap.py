"""``twistd odingw``: the service that listens, watches and ends."""

import gc
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from odingw import __version__
from odingw.clock import SteadyClock
from odingw.config import Config, state_folder
from odingw.config.parts import is_forgeable
from odingw.config.place import (
    DEFAULT_INTERNAL,
    addressless,
    contradiction,
    internal_endpoints,
    is_turn_alone,
    of_known_servers,
    served,
    trusted,
)
from odingw.customers import refresher, static_directory
from odingw.errors import ConfigError
from odingw.escapes import in_text
from odingw.fetch import without_user
from odingw.file_state import FileState, file_state
from odingw.gateway import Gateway
from odingw.http_proxies import HttpProxies
from odingw.key_files import check_keys
from odingw.listeners import Entry, listeners
from odingw.master_key import MasterKeys, make, without_master_key
from odingw.ops import logs
from odingw.ops.systemd import Notifier
from odingw.options import Options
from odingw.ports import PortError, Ports
from odingw.stores import check_store, servers_without
from odingw.web import twisted_private
from odingw.web.site import GatewaySite

FINISH_TIME: Final = 10.0
"""Seconds that requests in flight are given when the process ends."""

READY_TIME: Final = 10.0
"""Seconds that the store is given before it is served as in an outage."""

T = TypeVar("T")

_GC_THRESHOLD: Final = 5_000
"""Objects made between two looks of the garbage collector: a request leaves no cycles behind."""

WATCH_INTERVAL: Final = 5.0
"""Seconds between two looks at certificates and the configuration file."""


_log = Logger("odingw")


class GatewayService(Service):
    """Listens, watches what may change, and ends without losing anything.

    Args:
        options: where the configuration comes from; its file is watched.
        config: the configuration.
        observer: where log lines go; None: where twistd sends them.
        reactor: the reactor.
        trial: whether it will not be started; nothing is made then, and no key is written.

    Attributes:
        keys: the master keys that were found.
        known: what the state's file knows of servers.
    """

    def __init__(
        self,
        options: Options,
        config: Config,
        observer: ILogObserver | None,
        reactor: Any,
        *,
        trial: bool = False,
    ) -> None:
        self._config = config
        self._options = options
        self._config_path = Path(options["config"]) if options["config"] else None
        self._config_seen = self._config_state()
        self._observer = observer
        self._reactor = reactor
        self._listeners = listeners(config, reactor, options.origin())
        self._complaints: dict[str, str] = {}
        self._ports = Ports(self._listeners, self._site, self._remedy, reactor)
        self._serving = False
        self._waiting: Deferred[None] | None = None
        self._refresher = refresher(config.gateway, reactor)
        self.keys, self.known = check_keys(config, options, self._listeners.values())
        self._master_keys = self.keys.keys or (
            (secrets.token_bytes(32),) if trial else make(state_folder())
        )
        self._gateway = Gateway(
            config,
            self._master_keys,
            self._refresher,
            options.name,
            reactor,
            SteadyClock(),
            self._give_up,
            self.known.internal,
        )
        self._watcher = LoopingCall(self._watch)
        self._watcher.clock = reactor
        self._notifier = Notifier.from_environment(os.environ)
        self._watchdog = LoopingCall(self._notifier.watchdog)
        self._watchdog.clock = reactor

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802  -- Twisted's name
        """Join the application; it is the one that knows where log lines go."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:  # noqa: N802  -- Twisted's name
        """Take the ports, before twistd gives up root's rights.

        Raises:
            SystemExit: one cannot be had; the process ends with a line that says which.
        """
        try:
            self._ports.take()
        except PortError as error:
            _log.critical("{error}", error=str(error))
            raise SystemExit(1) from None

    def _site(self, entry: Entry) -> GatewaySite:
        site = GatewaySite(
            self._gateway.root(entry.roles),
            self._config.limits,
            self._reactor,
            proxied=entry.listener.proxied,
            trusted=self._config.listen.trusted_proxies,
            public="public" in entry.roles,
            check_server=self._gateway.server_check(entry.roles),
        )
        site.noisy = False
        return site

    def _remedy(self, description: str) -> str:
        by_default = description == DEFAULT_INTERNAL and not self._config.listen.internal
        return "name another one in listen.internal" if by_default else "configure another one"

    def startService(self) -> None:  # noqa: N802  -- Twisted's name
        """Begin to work."""
        super().startService()
        # A core dump would hold every secret; root can still allow one (prlimit --core).
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self._gateway.metrics.watch_number(
            "open_connections",
            "Connections that are open.",
            lambda: sum(len(site.channels) for site in self._ports.sites),
        )
        self._gateway.metrics.watch_gauges(
            "certificate_expiry_timestamp_seconds",
            "When the certificate of an endpoint ends, in unix time.",
            "endpoint",
            lambda: (
                (description, entry.listener.tls.not_after.timestamp())
                for description, entry in self._listeners.items()
                if entry.listener.tls is not None
            ),
        )
        self.explain()
        try:
            self._gateway.start()
        except ConfigError as error:
            # twistd sends standard error to the log by now.
            _log.critical("{error}", error=str(error))
            raise SystemExit(1) from None
        self._refresher.start()
        self._watcher.start(WATCH_INTERVAL, now=False)
        if self._notifier.watchdog_interval is not None:
            self._watchdog.start(self._notifier.watchdog_interval)
        self._reactor.callWhenRunning(self._running)

    async def _stop(self) -> None:
        self._gateway.health.stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
        for site in self._ports.sites:
            site.closing = True
        if self._config.listen.shutdown_delay:
            await deferLater(self._reactor, self._config.listen.shutdown_delay)
        await self._ports.close()
        finished = DeferredList([site.finish() for site in self._ports.sites])
        overdue = self._reactor.callLater(FINISH_TIME, self._abort)
        await finished
        if overdue.active():
            overdue.cancel()
        self._watcher.stop()
        self._refresher.stop()
        await self._gateway.stop()
        if self._watchdog.running:
            self._watchdog.stop()
        _log.info("stopped")

    def stopService(self) -> Deferred[None]:  # noqa: N802  -- Twisted's name
        """End: not ready, then deaf, then done with the requests in flight."""
        super().stopService()
        self._notifier.stopping(self._config.listen.shutdown_delay + 2 * FINISH_TIME)
        stopped = Deferred.fromCoroutine(self._stop())
        return stopped.addErrback(lambda failure: _log.failure("stopping failed", failure))

    def reload(self) -> None:
        """Read customers, TURN settings and certificates again.

        What cannot be used is reported and changes nothing.
        """
        self._complaints.clear()
        _log.info("reloading customers, TURN settings and certificates")
        if self._serving:
            self._notifier.reloading()
        try:
            self._reload_config()
            for description, entry in self._listeners.items():
                self._renew(description, entry, force=True)
        finally:
            if self._serving:
                self._notifier.ready()

    def _running(self) -> None:
        """Take signals over: Twisted knows no SIGHUP, and ends with status -15 on SIGTERM."""
        from_signal = self._reactor.callFromThread
        signal.signal(signal.SIGHUP, lambda *_: from_signal(self.reload))
        signal.signal(signal.SIGTERM, lambda *_: from_signal(self._terminate))
        if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, self._reactor.sigInt):
            signal.signal(signal.SIGINT, self._interrupt)
        # What was made until now stays; the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        serving = Deferred.fromCoroutine(self._serve())
        serving.addErrback(lambda failure: _log.failure("the start failed", failure))

    async def _serve(self) -> None:
        """Let everybody in as soon as the store can tell them what is true."""
        try:
            self._waiting = Deferred.fromCoroutine(_of(self._gateway.store.ready()))
            await self._waiting.addTimeout(READY_TIME, self._reactor)
        except (defer.TimeoutError, CancelledError):
            if self.running:
                _log.warn(
                    "the state is not there after {seconds:g} s; what can be served without is",
                    seconds=READY_TIME,
                )
        if not self.running:
            return
        try:
            self._ports.open()
        except PortError as error:
            self._give_up(str(error))
            return
        self._serving = True
        _log.info("odingw {version} has started", version=__version__)
        self._notifier.ready()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # Another one is of somebody who does not want to wait.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._reactor.sigInt(number, frame)

    def _terminate(self) -> None:
        _log.info("stopping on SIGTERM")
        if self.running:
            self._reactor.stop()

    def _give_up(self, reason: str) -> None:
        """End with status 1, which systemd and people take for a failed start."""
        _log.critical("{reason}", reason=reason)
        # twistd knows no other way to end a running reactor with a status.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    def _abort(self) -> None:
        for site in self._ports.sites:
            site.abort()

    def explain(self) -> None:
        """Tell operators where keys and state are kept, what is closed, and how to open it."""
        gateway, listen = self._config.gateway, self._config.listen
        _log.info(
            "the master key is kept in {where}" if self.keys.keys else "made a master key: {where}",
            where=self.keys.where,
        )
        _log.info("the state is kept in {where}", where=self._config.state.address.place)
        for warning in self.keys.warnings:
            _log.warn("{warning}", warning=warning)
        _log.info("{served}", served=served(self._config))
        for look in (trusted, contradiction, addressless):
            if found := look(self._config):
                _log.warn("{warning}", warning=found)
        source = gateway.customer_source
        if source is not None and source.url is not None and is_forgeable(source.url):
            _log.warn(
                "CUSTOMERS COME OVER PLAIN HTTP: whoever is on the way can add customers of their "
                "own; let gateway.customer_source.url begin with https"
            )
        if source is not None and source.url is not None:
            for problem in HttpProxies.from_environment().problems([without_user(source.url)]):
                _log.warn("{problem}", problem=problem)
        if not gateway.customers and source is None and not is_turn_alone(self._config):
            _log.warn(
                "no customer is configured, so nobody is let in; add [[gateway.customers]] with an "
                "access key's public_key, or a [gateway.customer_source]"
            )
        if gateway.unknown_customers != "forbidden":
            _log.warn(
                "DEMO MODE: gateway.unknown_customers lets in anybody, without checking signatures"
            )
        if listen.reuse_port and not self._config.state.address.shared:
            _log.warn(
                "listen.reuse_port is on, but the state is this process's own: other processes on "
                "the port would place rooms elsewhere; set state.url to a Redis"
            )
        if gateway.compatibility != "strict":
            _log.info(
                "compatibility with {version}: odingw_compat_accepted_total counts what strict "
                "settings would refuse",
                version=gateway.compatibility,
            )

    def _watch(self) -> None:
        try:
            state = self._config_state()
            if state != self._config_seen:
                self._config_seen = state
                self._reload_config()
            self._refresher.poll().addErrback(
                lambda failure: _log.failure("looking at the customers' file failed", failure)
            )
            self._try("the TURN settings stay as they were", self._gateway.turn.poll)
            for description, entry in self._listeners.items():
                self._renew(description, entry, force=False)
        except Exception:
            _log.failure("looking at certificates and configuration failed")

    def _config_state(self) -> FileState:
        return file_state(self._config_path) if self._config_path else None

    def _try(self, consequence: str, act: Callable[[], T]) -> T | None:
        """Do something that may find a configuration that cannot be used.

        A complaint is logged once, until it goes away, changes, or somebody asks for a reload.

        Args:
            consequence: what follows from that.
            act: what to do.

        Returns:
            What it returned; None if there was something to complain of.
        """
        try:
            result = act()
        except ConfigError as error:
            text = f"{consequence}: {error}"
            if self._complaints.get(consequence) != text:
                self._complaints[consequence] = text
                _log.error("{text}", text=text)
            return None
        self._complaints.pop(consequence, None)
        return result

    def _reload_config(self) -> None:
        config = self._try("the configuration stays as it was", self._options.load)
        if config is None:
            return
        self._try(
            "the TURN settings stay as they were", lambda: self._gateway.turn.reload(config.turn)
        )
        if internal_endpoints(config) != internal_endpoints(self._config):
            _log.warn(
                "/internal is to be served elsewhere ({which}); that counts from the next start on",
                which=", ".join(internal_endpoints(config)) or "nowhere",
            )
        keys = config.gateway.decoded_master_keys()
        if keys and keys != self._master_keys:
            _log.warn("other master keys are configured; they count from the next start on")
        self._refresher.set_static(static_directory(config.gateway.customers))
        self._refresher.refresh(again=True)

    def _renew(self, description: str, entry: Entry, *, force: bool) -> None:
        tls = entry.listener.tls
        if tls is None:
            return
        consequence = f"the certificate of {description} stays as it was"
        if self._try(consequence, tls.reload if force else tls.poll):
            _log.info(
                "new connections to {odingw_endpoint} get the new certificate, good until {until}",
                odingw_endpoint=description,
                until=tls.not_after.isoformat(),
            )


class Checked(NamedTuple):
    """What a look at a configuration found.

    Attributes:
        config: the configuration.
        keys: the master keys that count with it.
        warnings: what a gateway would start with, but warn of.
    """

    config: Config
    keys: MasterKeys
    warnings: list[str]


def check(options: Options) -> Checked:
    """Look at the configuration that the options ask for, and at what it names, as the start does.

    Nothing is made, opened for writing, or listened on.

    Raises:
        ConfigError: a gateway would not start with it.
    """
    from twisted.internet import reactor

    warnings: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.warn, LogLevel.error):
            warnings.append(formatEvent(event))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    try:
        config = options.load()
        check_store(config.state)
        service = GatewayService(options, config, None, reactor, trial=True)
        service.explain()
    finally:
        globalLogPublisher.removeObserver(observer)
    warnings += static_directory(config.gateway.customers).problems
    known = service.known
    if warning := of_known_servers(config, len(known.servers), known.internal):
        warnings.append(warning)
    if service.keys.keys and (unknown := servers_without(known, service.keys.keys)):
        warnings.append(without_master_key(unknown))
    return Checked(config, service.keys, list(dict.fromkeys(warnings)))


async def _of(awaitable: Awaitable[None]) -> None:
    await awaitable


def makeService(options: Options) -> GatewayService:  # noqa: N802  -- Twisted's name
    """Return the service that ``twistd odingw`` runs.

    Raises:
        SystemExit: the configuration cannot be used, with one line that says why; or ``--check``
            found that it can.
    """
    from twisted.internet import reactor

    try:
        twisted_private.check()
        if options["check"]:
            for warning in check(options).warnings:
                sys.stderr.write(f"odingw: warning: {warning}\n")
            sys.stdout.write("the configuration is good\n")
            raise SystemExit(0)
        config = options.load()
        return GatewayService(options, config, _observer(options.parent, config), reactor)
    except ConfigError as error:
        raise SystemExit(f"odingw: {in_text(str(error))}") from None


def _observer(twistd: usage.Options | None, config: Config) -> ILogObserver | None:
    """Return where log lines go; None where the operator told twistd of something else."""
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    name = twistd.get("logfile")
    file: Any
    if name == "-" or (twistd.get("nodaemon") and not name):
        file = sys.stdout
    else:
        file = LogFile.fromFullPath(str(Path(name or "twistd.log").resolve()))
    return logs.observer(file, config.log.level, config.log.format)
