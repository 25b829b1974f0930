"""Puts the parts together: configuration in, the roots that endpoints serve out."""

import secrets
import string
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from odingw.config import Config, DemoLimits
from odingw.config.place import (
    internal_endpoints,
    internal_networks,
    of_known_servers,
    remedies,
    trusts_unix_sockets,
    ways_out,
)
from odingw.customers import CustomerKey, CustomerRefresher
from odingw.grid.values import GridSettings
from odingw.master_key import without_master_key
from odingw.ops.events import EventLog
from odingw.ops.health import Check, Health
from odingw.ops.history import History
from odingw.ops.logs import once
from odingw.ops.metrics import Metrics
from odingw.ops.stalls import StallWatch
from odingw.ops.threads import dump
from odingw.rpc import callers
from odingw.rpc.client_api import ClientApi, ClientHooks
from odingw.rpc.grid_config import recommended
from odingw.rpc.jsonrpc import Engine, Turns
from odingw.rpc.server_api import ServerApi, ServerRules
from odingw.rpc.server_keys import ServerKeys
from odingw.state.slices import Slices
from odingw.stores import make_store
from odingw.tokens import Policy, SecretKey
from odingw.turn.service import TurnService
from odingw.web.address import block_of
from odingw.web.admin import AdminPages
from odingw.web.api import ClientHttp, ServerHttp
from odingw.web.app import Root, ShortCut, gateway_root, new_app
from odingw.web.attempts import Attempts
from odingw.web.channel import GatewayRequest
from odingw.web.clients import ClientFiles
from odingw.web.description import ApiDescriptions
from odingw.web.elsewhere import Elsewhere
from odingw.web.guard import BasicUsers, InternalGuard
from odingw.web.monitor import Monitor
from odingw.web.monitor_pages import MonitorPages
from odingw.web.monitor_rooms import RoomSearch
from odingw.web.openapi_parts import Apis
from odingw.web.rate import RateLimit
from odingw.web.turn import TurnHttp

if TYPE_CHECKING:
    from klein import Klein

_NAME_CHARACTERS: Final = string.ascii_letters + string.digits

Clock = Callable[[], float]


_log = Logger("odingw")


class Gateway:
    """The gateway without its sockets.

    Args:
        config: the configuration.
        master_keys: from which servers' keys are derived; they are given those of the first.
        refresher: keeps the customers.
        source: name of the configuration file, for messages.
        reactor: for timers.
        now: the steady clock.
        fatal: called with one line if the gateway finds that it must not go on.
        served_before: the endpoints that served ``/internal`` before this start, if that is known.

    Attributes:
        health: what readiness depends on.
        metrics: what Prometheus is shown.
        store: the grids' state.
    """

    def __init__(
        self,
        config: Config,
        master_keys: Sequence[bytes],
        refresher: CustomerRefresher,
        source: str,
        reactor: IReactorTime,
        now: Clock,
        fatal: Callable[[str], None],
        served_before: str = "",
    ) -> None:
        self._config = config
        self._reactor: Any = reactor
        self._now = now
        self._customers = refresher
        self._keys = ServerKeys(
            *master_keys,
            on_missing=once(
                lambda address: _log.error(
                    "{problem}", problem=without_master_key([address]), odingw_server=address
                )
            ),
        )
        gateway = config.gateway
        self._settings = GridSettings(
            report_interval=gateway.report_interval,
            disable_timeout=gateway.disable_timeout,
            unheard_timeout=gateway.unheard_timeout,
            remove_timeout=gateway.remove_timeout,
            reservation_lifetime=gateway.reservation_lifetime,
            queued_tasks=config.limits.queued_tasks,
            bans_per_customer=gateway.bans_per_customer,
        )
        self.metrics = Metrics(now)
        self.store = make_store(
            config.state,
            self._settings,
            secrets.SystemRandom().randrange,
            reactor,
            self.metrics,
            now,
            master_keys,
            ", ".join(internal_endpoints(config)),
            fatal,
        )
        self.metrics.watch(self.store, lambda name: name in refresher.directory.customers)
        self._watch_customers()
        self._watch_keys()
        self._events = EventLog(self.metrics)
        self.turn = TurnService(config.turn, source, reactor, self._customer_key)
        refresher.on_change = lambda _: self.turn.customers_changed()
        self._watch_turn()
        self.health = Health()
        self.health.add("customers", self._check_customers)
        self.health.add("state", self._check_state)
        self.metrics.watch_gauges(
            "healthy",
            "Whether a health check holds; a gateway is ready when all do.",
            "check",
            lambda: ((name, float(check.healthy)) for name, check in self.health.results().items()),
        )
        self._attempts = Attempts(
            config.limits.requests_per_second,
            config.listen.trusted_proxies,
            now,
            self.metrics.wrong_password,
            lambda realm, who: _log.warn(
                "wrong {odingw_realm} credentials from {odingw_address}",
                odingw_realm=realm,
                odingw_address=who,
            ),
        )
        refused = once(lambda text: _log.warn("a call of /internal was refused: {text}", text=text))
        self._guard = InternalGuard(
            gateway.internal.users,
            internal_networks(config),
            config.listen.trusted_proxies,
            refused,
            self._attempts,
            unix=trusts_unix_sockets(config),
        )
        pools = dict.fromkeys((gateway.pools.default, *gateway.pools.available))
        self._elsewhere = Elsewhere(
            ["/internal", *(f"/{pool}/internal" for pool in pools if pool)],
            ways_out(config),
            config.listen.trusted_proxies,
            now,
            lambda path: _log.error(
                "a program on this host called {odingw_path} on a public endpoint, which does not "
                "serve it, and was refused; if it is an ODIN server: {remedies}",
                odingw_path=path,
                remedies=remedies(config, path),
            ),
            refused,
        )
        self._per_address = RateLimit(config.limits.requests_per_second, block_of)
        self._per_key = RateLimit(config.limits.requests_per_second_per_key)
        self._pause = Slices(reactor).pause
        self._turns = Turns(time.thread_time, self._pause)
        self._clients: dict[str, ClientHttp] = {}
        self._servers: dict[str, ServerHttp] = {}
        for pool in pools:
            self._add_pool(pool)
        self._history = History(self.store, self.metrics, now, reactor)
        self._stalls = StallWatch(reactor)
        self._watch_reactor()
        self._looked_for_servers = False
        self._served_before = served_before
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = reactor

    def start(self) -> None:
        """Take up the stored state, and begin the periodic work.

        Raises:
            ConfigError: the store cannot be used.
        """
        self.store.start(self._now())
        self._ticker.start(self._settings.tick)
        self._history.start()
        self._stalls.start()
        self.turn.start()

    async def stop(self) -> None:
        """End the periodic work, and store what is left."""
        if self._ticker.running:
            self._ticker.stop()
        self._history.stop()
        self._stalls.stop()
        self.turn.stop()
        await self.store.stop()

    def server_check(
        self, roles: Collection[str]
    ) -> Callable[[GatewayRequest, bool], object] | None:
        """Return what raises ``RpcError`` if a request may not call the server API.

        Args:
            roles: of the endpoint, as for ``root``.
        """
        if "internal" in roles:
            return self._check_server
        return self._elsewhere.check if "public" in roles else None

    def _check_server(self, request: GatewayRequest, proxied: bool) -> None:
        self._guard.check(request, proxied=proxied)

    def root(self, roles: Collection[str]) -> Root:
        """Return the root of an endpoint.

        Args:
            roles: of ``public`` (clients and browsers call), ``internal`` (servers call) and
                ``admin``.
        """
        if set(roles) == {"admin"}:
            app = new_app()
            pages = self._admin_pages(shared=False)
            pages.add_to(app)
            ApiDescriptions("odingw admin", Apis(), pages.check, pages.check).add_to(app)
            return Root(app, {})
        more: list[Callable[[Klein], None]] = [self._descriptions(roles).add_to]
        short_cuts: dict[tuple[bytes, bytes], ShortCut] = {}
        if "public" in roles:
            turn = self._turn_http()
            more += [turn.add_to, ClientFiles(self.metrics.client_file).add_to]
            short_cuts[b"GET", b"/turn"] = (turn.handle, True)
            if "internal" not in roles:
                more.append(self._elsewhere.add_to)
        if "admin" in roles:
            more.append(self._admin_pages(shared=True).add_to)
        return gateway_root(
            self._clients if "public" in roles else {},
            self._servers if "internal" in roles else {},
            self._config.gateway.pools.default,
            more,
            short_cuts,
        )

    def _descriptions(self, roles: Collection[str]) -> ApiDescriptions:
        public = "public" in roles
        paths = ["/", *(f"/{pool}/" for pool in self._clients if pool)]
        servers = [f"{path}internal" for path in paths] if "internal" in roles else ()

        def check_server(request: GatewayRequest) -> None:
            self._check_server(request, request.site.proxied)

        return ApiDescriptions(
            "odingw",
            Apis(paths if public else (), servers),
            check_server,
            None if public else check_server,
        )

    def _admin_pages(self, *, shared: bool) -> AdminPages:
        users = BasicUsers(self._config.admin.users, "admin", self._attempts)
        monitor = Monitor(
            self.store,
            self.metrics,
            self.health,
            lambda: self._customers.directory.customers.values(),
            self.turn,
            self._now,
            self._reactor.seconds,
            self._pause,
        )
        pages = MonitorPages(
            monitor,
            RoomSearch(self.store, lambda act: self._reactor.callLater(0, act)),
            self._history,
            self.store,
            self.metrics,
            changes=bool(users),
        )
        return AdminPages(
            self.metrics,
            self.health,
            users,
            pages,
            self._dump_threads,
            hosts=self._config.admin.hosts,
            shared=shared,
        )

    def _dump_threads(self) -> str:
        return dump(self._reactor.getDelayedCalls(), self._reactor.seconds())

    def _add_pool(self, pool: str) -> None:
        config, gateway = self._config, self._config.gateway
        store = self.store.pool(pool)
        metrics = self.metrics

        def server_key(kid: str) -> SecretKey | None:
            return self._keys.verifying(kid, store)

        client_api = ClientApi(
            store,
            self._keys,
            gateway.token_lifetime,
            gateway.room_match,
            ClientHooks(metrics.placed, metrics.refused, self._events.managed, metrics.relaxed),
        )
        self._clients[pool] = ClientHttp(
            Engine(
                client_api.methods,
                config.limits.batch,
                lambda method, outcome: metrics.call("client", method, outcome),
                self._crashed,
                self._turns,
            ),
            callers.Authenticator(
                client_api.methods,
                self._access_rules(),
                self._customer_key,
                server_key,
                self._is_configured,
            ),
            metrics,
            self._now,
            token_limit=config.limits.token,
            per_address=self._per_address,
            per_key=self._per_key,
            trusted=config.listen.trusted_proxies,
            refresh=store.refresh,
        )
        server_api = ServerApi(
            store,
            self._keys,
            ServerRules(
                settings=recommended(
                    gateway.report_interval, gateway.metrics_allowed, gateway.grid_config
                ),
                servers=gateway.internal.servers,
                rooms_per_report=config.limits.rooms_per_report,
                config_size=config.limits.body,
            ),
            _in_thread,
            self._events.event,
            metrics.call_counts,
            self._pause,
        )
        self._servers[pool] = ServerHttp(
            Engine(
                server_api.methods,
                config.limits.batch,
                lambda method, outcome: metrics.call("server", method, outcome),
                self._crashed,
                self._turns,
            ),
            store,
            self._guard,
            metrics,
            self._now,
            self._events.event,
            config.listen.trusted_proxies,
        )

    def _access_rules(self) -> callers.AccessRules:
        gateway = self._config.gateway
        unknown = gateway.unknown_customers
        return callers.AccessRules(
            policy=Policy(leeway=gateway.leeway, require_expiry=gateway.require_expiry),
            require_subject=gateway.require_subject,
            room_match=gateway.room_match,
            server_tokens=gateway.internal.server_tokens,
            unknown_customers=(
                callers.DemoLimits(unknown.max_peers, unknown.max_rooms, unknown.total_peers)
                if isinstance(unknown, DemoLimits)
                else None
            ),
        )

    def _customer_key(self, kid: str) -> CustomerKey | None:
        return self._customers.directory.keys.get(kid)

    def _is_configured(self, name: str) -> bool:
        directory = self._customers.directory
        return name in directory.customers or name in directory.namespaces

    def _check_customers(self) -> Check:
        count = len(self._customers.directory.keys)
        return Check(self._customers.loaded, f"{count} customer keys")

    def _check_state(self) -> Check:
        trouble = self.store.trouble
        return Check(not trouble, trouble or "stored")

    def _turn_http(self) -> TurnHttp:
        return TurnHttp(
            lambda: self.turn.current,
            self.metrics,
            self._now,
            _random_name,
            token_limit=self._config.limits.token,
            per_address=self._per_address,
            trusted=self._config.listen.trusted_proxies,
        )

    def _watch_reactor(self) -> None:
        stalls = self._stalls
        self.metrics.watch_number(
            "reactor_longest_delay_seconds",
            "The longest time for which the reactor was held up.",
            lambda: stalls.longest,
        )
        self.metrics.watch_number(
            "reactor_longest_step_seconds",
            "The longest time for which work of the gateway itself held the reactor up.",
            lambda: stalls.longest_busy,
        )
        self.metrics.watch_number(
            "store_longest_step_seconds",
            "The longest time for which storing held the reactor up.",
            lambda: self.store.longest_step,
        )
        self.metrics.watch_number(
            "store_rows_skipped_total",
            "Rows in Redis that could not be read.",
            lambda: self.store.skipped,
        )

    def _watch_keys(self) -> None:
        keys, store = self._keys, self.store
        self.metrics.watch_number(
            "servers_with_older_key",
            "Servers whose key does not come from the first master key.",
            lambda: sum(
                server.kid != keys[server.address].kid
                for _, pool in store.pools()
                for server in pool.servers()
            ),
        )

    def _watch_turn(self) -> None:
        turn, metrics = self.turn, self.metrics
        metrics.watch_gauges(
            "turn_server_up",
            "Whether a TURN or STUN server answers.",
            "uri",
            lambda: ((health.uri, float(health.up)) for health in turn.health()),
        )
        metrics.watch_gauges(
            "turn_certificate_trusted",
            "Whether browsers take the certificate of a TURN or STUN server.",
            "uri",
            lambda: (
                (health.uri, float(not health.certificate.refusal))
                for health in turn.health()
                if health.certificate
            ),
        )
        metrics.watch_gauges(
            "turn_certificate_expiry_timestamp_seconds",
            "When the certificate of a TURN or STUN server ends, in unix time.",
            "uri",
            lambda: (
                (health.uri, health.certificate.ends)
                for health in turn.health()
                if health.certificate
            ),
        )
        metrics.watch_number(
            "jwks_fetches_total",
            "JWK set fetches that succeeded.",
            lambda: turn.count_of_sets("fetches_ok"),
        )
        metrics.watch_number(
            "jwks_fetch_failures_total",
            "JWK set fetches that failed.",
            lambda: turn.count_of_sets("fetches_failed"),
        )

    def _watch_customers(self) -> None:
        customers = self._customers
        self.metrics.watch_limits(lambda: customers.directory.customers.values())
        self.metrics.watch_number(
            "customer_keys", "Access keys that are let in.", lambda: len(customers.directory.keys)
        )
        self.metrics.watch_number(
            "customer_refresh_failures_total",
            "Refreshes of the customer list that failed.",
            lambda: customers.failures,
        )
        self.metrics.watch_number(
            "customer_refresh_age_seconds",
            "Time since the last good refresh of the customer list; 0 without a source.",
            lambda: self._now() - customers.last_success if customers.last_success else 0.0,
        )

    def _tick(self) -> None:
        try:
            if not self._looked_for_servers and not self.store.trouble:
                self._looked_for_servers = True
                self._look_for_servers()
            for event in self.store.tick(self._now()):
                self._events.event(event)
        except Exception:
            # A LoopingCall ends at its first exception; liveness must not.
            _log.failure("the periodic work of the grid failed")

    def _look_for_servers(self) -> None:
        """Warn of servers that the state knows from before, and that cannot go on as they did."""
        servers = [server for _, pool in self.store.pools() for server in pool.servers()]
        if warning := of_known_servers(self._config, len(servers), self._served_before):
            _log.warn("{warning}", warning=warning)
        unknown = [one.address for one in servers if not self._keys.knows(one.address, one.kid)]
        if unknown:
            _log.warn("{warning}", warning=without_master_key(unknown))

    def _crashed(self, method: str, error: Exception) -> None:
        failure = Failure(error)  # type: ignore[no-untyped-call]  # Twisted has no types here
        _log.failure("{odingw_method} failed", failure, odingw_method=method)


def _random_name() -> str:
    return "".join(secrets.choice(_NAME_CHARACTERS) for _ in range(16))


def _in_thread(work: Callable[[], str]) -> Awaitable[str]:
    return deferToThread(work)
