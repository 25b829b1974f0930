"""A master key is replaced under load: real gateways, simulated servers that check room tokens.

Gateways are restarted with other keys, then servers one by one, then gateways again without the
old key; clients come all the time, and none is refused.
"""

import random
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from odingw.sim.client import Crowd
from odingw.sim.clock import sleep
from odingw.sim.rooms import Peer
from odingw.sim.server import SimulatedServer
from odingw.sim.wire import Gateway, GatewayError, Unreachable
from odingw.tokens import SecretKey, server_key
from tests.process import ACCESS_KEY, GatewayProcess, customer
from tests.redis_server import RedisServer, require_redis

reactor: Any = global_reactor

OLD: Final = b"the old master key, of which servers have keys"
NEW: Final = b"the new master key, which takes its place"
SERVERS: Final = ("sfu1.test:4433", "sfu2.test:4433")
PATIENCE: Final = 60.0
RATE: Final = 40.0

LISTEN: Final = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
)
GRID: Final = "report_interval = 0.2\ndisable_timeout = 10\nreservation_lifetime = 2\n"


class Restartable(GatewayProcess):
    """A gateway whose master keys change from start to start."""

    def begin(self, *master_keys: bytes) -> None:
        """End it if it runs, and start it with these master keys."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(PATIENCE) == 0, self.log
            # Not to be taken for what the next process writes.
            self.wait_for("<end>")
        self.configure(GRID + customer())
        keys = ", ".join(f'"{b64encode(key).decode()}"' for key in master_keys)
        lines = self.config.read_text().splitlines()
        lines = [f"master_keys = [{keys}]" if "master_key =" in line else line for line in lines]
        self.config.write_text("\n".join(lines))
        self._lines.clear()
        self.start()
        end = time.monotonic() + PATIENCE
        while self.request("GET", "/readyz", port=self.admin)[0] != 200:
            assert time.monotonic() < end, self.log
            time.sleep(0.02)


class Anyone:
    """Whichever of some gateways is ready, as clients and servers behind a balancer know them.

    Attributes:
        ready: the gateways that get calls.
    """

    def __init__(self, processes: Sequence[GatewayProcess]) -> None:
        self.gateways = [
            Gateway.over(reactor, f"http://127.0.0.1:{process.port}/", persistent=False)
            for process in processes
        ]
        self.ready = list(self.gateways)

    def call(self, method: str, params: object, **options: Any) -> Deferred[Any]:
        """Make a call, at another gateway if one is not there."""
        return ensureDeferred(self._call(method, params, options))

    async def _call(self, method: str, params: object, options: dict[str, Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            for gateway in random.sample(self.ready, len(self.ready)):
                try:
                    return await gateway.call(method, params, **options)
                except Unreachable:
                    if time.monotonic() > end:
                        raise
            await sleep(reactor, 0.02)


class CountingServer(SimulatedServer):
    """A server that counts whom it lets in."""

    entered = 0

    def join(self, room_token: str, now: float, room: str | None = None) -> Peer:
        """Let a client in."""
        peer = super().join(room_token, now, room)
        self.entered += 1
        return peer


class RotationCase(TestCase):
    timeout = 300

    def prepare(self, processes: Sequence[Restartable]) -> None:
        """Take note of the gateways, which are started by the test."""
        self.processes = processes
        for process in processes:
            self.addCleanup(deferToThread, process.stop)
        self.balancer = Anyone(processes)
        # It does what the simulation asks of a gateway.
        self.anyone = cast("Gateway", self.balancer)
        self.servers: dict[str, CountingServer] = {}
        self.addCleanup(self.end)

    async def end(self) -> None:
        """Stop everything."""
        if hasattr(self, "crowd"):
            await self.crowd.stop()
        for server in self.servers.values():
            await server.stop()
        for gateway in self.balancer.gateways:
            await gateway.close()

    async def begin(self, *master_keys: bytes) -> None:
        """Start all gateways with these master keys, one after the other."""
        for process, gateway in zip(self.processes, self.balancer.gateways, strict=True):
            if len(self.balancer.ready) > 1:
                self.balancer.ready.remove(gateway)
            await deferToThread(process.begin, *master_keys)
            if gateway not in self.balancer.ready:
                self.balancer.ready.append(gateway)

    async def start_server(self, address: str) -> None:
        """Start a server."""
        server = CountingServer(self.anyone, address, reactor, capacity=1000, linger=0.1)
        self.servers[address] = server
        await server.start()

    async def restart_server(self, address: str) -> None:
        """Restart a server in peace: drained first, and when nobody is on it any more."""
        await self.manage("Drain", address)
        await self.until(lambda: not len(self.servers[address].rooms))
        while any(room["server"] == address for room in (await self.info())["rooms"]):
            await sleep(reactor, 0.05)
        await self.servers[address].stop()
        await self.start_server(address)
        await self.manage("Undrain", address)

    async def manage(self, method: str, address: str) -> None:
        """Make a call of the server API."""
        await self.anyone.call(method, {"server": address}, path="internal")

    async def info(self) -> Any:
        """Return what a gateway tells."""
        return await self.anyone.call("Info", {}, path="internal")

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something."""
        end = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), end)
            await sleep(reactor, 0.02)

    async def let_in(self, clients: int = 12) -> None:
        """Wait until each server has let in so many clients more, and nobody was refused."""
        wanted = {server: server.entered + clients for server in self.servers.values()}

        def have_come() -> bool:
            self.check()
            return all(server.entered >= wanted[server] for server in wanted)

        await self.until(have_come)

    def bring_clients(self) -> None:
        """Let clients come from now on."""
        self.crowd = Crowd(
            self.anyone,
            self.servers,
            ACCESS_KEY,
            rate=RATE,
            rooms=[f"room{number}" for number in range(4000)],
            mean_stay=0.1,
            clock=reactor,
            rng=random.Random(7),  # noqa: S311  -- load, no secret
        )
        self.crowd.start()

    def check(self) -> None:
        """Nobody has been refused."""
        seen = self.crowd.statistics
        self.assertEqual({}, dict(seen.refused))
        self.assertEqual({}, dict(seen.join_failures))
        self.assertEqual((0, 0), (seen.unreachable, seen.misbehaviours))
        self.assertEqual(seen.granted, seen.joined)

    def check_keys(self, *master_keys: bytes) -> None:
        """The servers have keys of these master keys, in the order of ``SERVERS``."""
        wanted = [
            server_key(key, address) for key, address in zip(master_keys, SERVERS, strict=True)
        ]
        settings = [self.servers[address].settings for address in SERVERS]
        self.assertEqual(wanted, [found and found.key for found in settings])

    async def reconnect(self, key: SecretKey) -> str:
        """Connect with a token that a server has signed; return the answer's kind."""
        now = int(time.time())
        claims = (
            '{"rid":"again","uid":"user","cid":"acme","nsp":"acme","sub":"connect",'
            f'"nbf":{now},"exp":{now + 60}}}'
        )
        try:
            await self.anyone.call("Connect", {}, token=key.sign_jwt(claims.encode()))
        except GatewayError as error:
            return f"refused with {error.status}"
        return "let in"

    async def older(self) -> float:
        """Return how many servers have keys of an older master key, as operators are shown."""
        _, _, page = await deferToThread(
            self.processes[0].request, "GET", "/metrics", port=self.processes[0].admin
        )
        (line,) = (
            line
            for line in page.decode().splitlines()
            if line.startswith("odingw_servers_with_older_key ")
        )
        return float(line.split()[1])


class OneGatewayTests(RotationCase):
    async def test_without_a_refused_client(self) -> None:
        """[old], then [new, old], then the servers, then [new], with a journal in between."""
        self.prepare([Restartable(before=LISTEN + '[state]\nurl = "sqlite:{folder}/state"\n')])
        await self.begin(OLD)
        for address in SERVERS:
            await self.start_server(address)
        self.bring_clients()
        await self.let_in()
        self.check_keys(OLD, OLD)
        old = server_key(OLD, SERVERS[0])

        await self.begin(NEW, OLD)
        await self.let_in()
        self.check_keys(OLD, OLD)
        self.assertEqual(2, await self.older())
        for number, address in enumerate(SERVERS, 1):
            await self.restart_server(address)
            await self.let_in()
            self.check_keys(*[NEW] * number, *[OLD] * (2 - number))
            self.assertEqual(2 - number, await self.older())
            # What it signed before its restart, and what it signs now.
            for key in (old, server_key(NEW, SERVERS[0])):
                self.assertEqual("let in", await self.reconnect(key))

        await self.begin(NEW)
        await self.let_in()
        self.check_keys(NEW, NEW)
        self.assertEqual("refused with 401", await self.reconnect(old))
        self.assertEqual("let in", await self.reconnect(server_key(NEW, SERVERS[0])))
        await self.crowd.stop()
        self.check()


@pytest.mark.long
class FleetTests(RotationCase):
    async def test_without_a_refused_client(self) -> None:
        """Two gateways over one Redis, restarted one after the other at each step."""
        require_redis(self)
        redis = RedisServer(persistent=False).start()
        self.addCleanup(redis.close)
        state = f'[state]\nurl = "{redis.url()}"\n'
        self.prepare([Restartable(before=LISTEN + state) for _ in range(2)])
        await self.begin(OLD)
        for address in SERVERS:
            await self.start_server(address)
        self.bring_clients()
        await self.let_in()
        await self.begin(OLD, NEW)
        await self.let_in()
        self.check_keys(OLD, OLD)
        await self.begin(NEW, OLD)
        await self.let_in()
        for number, address in enumerate(SERVERS, 1):
            await self.restart_server(address)
            await self.let_in()
            self.check_keys(*[NEW] * number, *[OLD] * (2 - number))
        await self.begin(NEW)
        await self.let_in()
        self.check_keys(NEW, NEW)
        await self.crowd.stop()
        self.check()
