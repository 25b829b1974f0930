"""A gateway lets clients and servers in when its store can tell them what is true, not before."""

import http.client
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from odingw.web.early import TcpEndpoint
from odingw.web.endpoints import listener
from odingw.web.last_call import close_ports, drop_new
from tests.ports import free_port
from tests.process import START_TIME, GatewayProcess, customer
from tests.redis_server import RedisServer, require_redis
from tests.tcp_proxy import TcpProxy
from tests.test_tls import Answers, LoopbackCase

HOST = "127.0.0.1"


def refuses(port: int) -> bool:
    """Tell whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


class EarlyTests(LoopbackCase):
    def endpoint(self, port: int = 0, host: str = HOST, *, reuse_port: bool = False) -> Any:
        endpoint = TcpEndpoint(reactor, host, port, 100, reuse_port)
        self.addCleanup(endpoint.unbind)
        return endpoint

    async def test_bound_ports_refuse_until_they_listen(self) -> None:
        for host in (HOST, "::1"):
            number = free_port()
            endpoint = self.endpoint(number, host)
            endpoint.bind()
            if host == HOST:
                self.assertTrue(refuses(number))
            host_of = await self.serve(endpoint)
            self.assertEqual((host, number), (host_of.host, host_of.port))
            with socket.create_connection((host, number)):
                pass

    async def test_it_ends_with_its_port(self) -> None:
        """No descriptor is left that would keep it open."""
        endpoint = self.endpoint(number := free_port())
        endpoint.bind()
        port: Any = await endpoint.listen(Answers())
        self.assertFalse(refuses(number))
        await port.stopListening()
        self.assertTrue(refuses(number))

    async def test_a_port_that_is_taken_is_found_at_once(self) -> None:
        host = await self.serve(self.endpoint())
        for reuse_port in (False, True):
            endpoint = self.endpoint(host.port, reuse_port=reuse_port)
            self.assertRaises(CannotListenError, endpoint.bind)

    async def test_two_that_have_taken_a_port(self) -> None:
        """Neither listens yet, so that both may have it; the second to listen is told."""
        one, two = self.endpoint(number := free_port()), self.endpoint(number)
        one.bind()
        two.bind()
        await self.serve(one)
        await self.assertFailure(two.listen(Answers()), CannotListenError)

    async def test_a_shared_port_gets_no_share_before_it_listens(self) -> None:
        one = self.endpoint(reuse_port=True)
        host = await self.serve(one)
        two = self.endpoint(host.port, reuse_port=True)
        two.bind()
        for _ in range(50):
            with socket.create_connection((HOST, host.port)):
                pass

    async def test_who_waits_to_be_let_in_is_when_the_port_closes(self) -> None:
        endpoint = self.endpoint()
        endpoint.bind()
        port: Any = await endpoint.listen(Answers())
        number = port.getHost().port
        with ExitStack() as stack:
            waiting = [
                stack.enter_context(socket.create_connection((HOST, number), START_TIME))
                for _ in range(20)
            ]
            await close_ports([port], reactor)
            self.assertTrue(refuses(number))
            for wire in waiting:
                wire.sendall(b"hello")
                self.assertEqual(b"hello", await deferToThread(wire.recv, 5))

    async def test_nobody_is_cut_when_the_port_closes(self) -> None:
        """Whoever comes in that moment is let in, or refused; its connection is not reset."""
        if sys.platform != "linux":
            self.skipTest("needs Linux")
        for host in (HOST, "::1"):
            endpoint = self.endpoint(host=host)
            endpoint.bind()
            port: Any = await endpoint.listen(Answers())
            number = port.getHost().port
            early = socket.create_connection((host, number), START_TIME)
            self.addCleanup(early.close)
            drop_new(port.socket)
            late = deferToThread(socket.create_connection, (host, number), START_TIME)
            await close_ports([port], reactor)
            await self.assertFailure(late, ConnectionRefusedError)
            early.sendall(b"hello")
            self.assertEqual(b"hello", await deferToThread(early.recv, 5))

    def test_let_go(self) -> None:
        endpoint = self.endpoint(number := free_port())
        endpoint.bind()
        endpoint.unbind()
        again = self.endpoint(number)
        again.bind()
        again.unbind()

    def test_which_endpoints_have_a_port(self) -> None:
        for text, there in (
            ("tcp:0", True),
            ("haproxy:tcp:0", True),
            ("tcp6:0", True),
            ("unix:/tmp/none", False),
            ("systemd:domain=INET:name=none", False),
        ):
            found = listener(reactor, text, tls=None).tcp
            self.assertEqual(there, found is not None, text)


class StopTests(SynchronousTestCase):
    def test_who_has_just_come_is_answered(self) -> None:
        """Its first request may be under way while the gateway listens no more."""
        gateway = GatewayProcess(customer()).start()
        self.addCleanup(gateway.stop)
        with (
            socket.create_connection((HOST, gateway.port), START_TIME) as new,
            socket.create_connection((HOST, gateway.port), START_TIME) as silent,
        ):
            # Once this is answered, the others have been let in.
            self.assertEqual(200, gateway.request("GET", "/ping")[0])
            assert gateway.process is not None
            gateway.process.terminate()
            gateway.wait_for(f"TCP Port {gateway.port} Closed")
            new.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            reply = b""
            while piece := new.recv(65536):
                reply += piece
            self.assertIn(b"Connection: close", reply)
            self.assertTrue(reply.endswith(b"pong"), reply)
            self.assertEqual(b"", silent.recv(1))
        self.assertEqual(0, gateway.process.wait(START_TIME))


class StartTests(SynchronousTestCase):
    """Real gateways whose Redis is there, late, or not at all."""

    def setUp(self) -> None:
        require_redis(self)
        self.redis = RedisServer(persistent=False).start()
        self.addCleanup(self.redis.close)
        self.proxy = TcpProxy(self.redis.address).start()
        self.addCleanup(self.proxy.close)

    def gateway(self, public: str = '"tcp:{port}:interface=127.0.0.1"') -> GatewayProcess:
        before = (
            f"[listen]\npublic = [{public}]\n"
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[state]\nurl = "{self.redis.url(port=self.proxy.port)}"\n'
        )
        gateway = GatewayProcess(customer(), before)
        self.addCleanup(gateway.stop)
        return gateway

    def status(self, gateway: GatewayProcess, path: str) -> int:
        """Return the status of a page of the admin endpoint, once there is one."""
        end = time.monotonic() + START_TIME
        while True:
            try:
                return gateway.request("GET", path, port=gateway.admin)[0]
            except (OSError, http.client.HTTPException):
                self.assertLess(time.monotonic(), end, gateway.log)
                time.sleep(0.01)

    def test_the_public_port_opens_when_the_state_is_there(self) -> None:
        self.proxy.stall = True
        folder = tempfile.TemporaryDirectory(prefix="odingw-notify-")
        self.addCleanup(folder.cleanup)
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(heard.close)
        heard.bind(f"{folder.name}/notify")
        self.patch(os, "environ", os.environ | {"NOTIFY_SOCKET": f"{folder.name}/notify"})
        gateway = self.gateway().start("for admin")
        self.assertEqual(200, self.status(gateway, "/healthz"))
        self.assertEqual(503, self.status(gateway, "/readyz"))
        self.assertTrue(refuses(gateway.port))
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("reloading")
        self.assertEqual(200, self.status(gateway, "/healthz"))
        self.assertRaises(BlockingIOError, heard.recv, 100)
        self.proxy.stall = False
        gateway.wait_for("has started")
        heard.settimeout(START_TIME)
        self.assertEqual(b"READY=1", heard.recv(100))
        self.assertEqual(200, self.status(gateway, "/readyz"))
        self.assertFalse(refuses(gateway.port))

    def test_what_waits_at_a_unix_socket_is_served(self) -> None:
        self.proxy.stall = True
        gateway = self.gateway('"unix:{folder}/public"').start("for admin")
        self.assertEqual(503, self.status(gateway, "/readyz"))
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(START_TIME)
            wire.connect(str(gateway.folder / "public"))
            wire.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertNotIn("has started", gateway.log)
            self.proxy.stall = False
            reply = b""
            while piece := wire.recv(65536):
                reply += piece
        self.assertTrue(reply.endswith(b"pong"), reply)

    def test_without_redis_it_serves_in_the_end(self) -> None:
        """As in an outage: reports are answered, and new rooms refused."""
        self.redis.kill()
        gateway = self.gateway().start()
        self.assertIn("the state is not there after 10 s", gateway.log)
        self.assertIn("result", gateway.report("sfu.test:4433"))
        refused = gateway.connect("room")["error"]["data"]["reason"]
        self.assertEqual("store_unavailable", refused)
        self.assertEqual(503, self.status(gateway, "/readyz"))

    def test_stopped_before_it_serves(self) -> None:
        self.proxy.stall = True
        gateway = self.gateway().start("for admin")
        self.status(gateway, "/healthz")
        assert gateway.process is not None
        gateway.process.terminate()
        self.assertEqual(0, gateway.process.wait(START_TIME), gateway.log)
        self.assertNotIn("has started", gateway.log)
        self.assertNotIn("Traceback", gateway.log)

    def test_a_port_that_is_taken_ends_the_start_at_once(self) -> None:
        self.proxy.stall = True
        gateway = self.gateway()
        with socket.create_server((HOST, gateway.port)):
            gateway.start("cannot listen on")
            assert gateway.process is not None
            self.assertEqual(1, gateway.process.wait(START_TIME))
