"""The real redis-server that tests start, and the proxies before it, do what tests rely on."""

import os
import socket
import ssl
import threading
import time
import unittest
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.process import free_port
from tests.redis_server import HOST, RedisClient, RedisServer, require_redis
from tests.tcp_proxy import Address, Balancer, TcpProxy

PATIENCE: Final = 30.0

SHORT: Final = 0.2
"""Seconds to wait for an answer that must not come."""

NEVER: Final = 3600.0


class RedisCase(SynchronousTestCase):
    def server(
        self,
        *,
        password: str | None = None,
        username: str | None = None,
        tls: bool = False,
        persistent: bool = True,
    ) -> RedisServer:
        """Return a server that runs until the test's end."""
        server = RedisServer(password=password, username=username, tls=tls, persistent=persistent)
        self.addCleanup(server.close)
        return server.start()

    def client(self, server: RedisServer, proxy: TcpProxy | Balancer) -> RedisClient:
        """Return a connection by way of a proxy, which is open until the test's end."""
        client = server.client(proxy.address)
        self.addCleanup(client.close)
        return client

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                self.fail("in vain")
            time.sleep(0.01)


class RedisServerTests(RedisCase):
    def test_answers_of_every_kind(self) -> None:
        server = self.server(persistent=False)
        self.assertEqual("PONG", server.command("PING"))
        self.assertEqual("OK", server.command("SET", "text", b"\r\n\0\xff"))
        self.assertEqual(b"\r\n\0\xff", server.command("GET", "text"))
        self.assertEqual(b"", server.command("ECHO", ""))
        self.assertEqual(2, server.command("HSET", "hash", "a", "1", "b", "2"))
        self.assertEqual([b"a", b"1", b"b", b"2"], server.command("HGETALL", "hash"))
        self.assertEqual([], server.command("HGETALL", "none"))
        self.assertIsNone(server.command("HGET", "hash", "none"))
        nested = server.command("EVAL", "return {1, {'x', false, {}}}", "0")
        self.assertEqual([1, [b"x", None, []]], nested)
        self.assertEqual([b"maxclients"], server.command("CONFIG", "GET", "maxclients")[::2])
        self.assertIn(b"redis_version:", server.command("INFO"))
        self.assertEqual({b"text", b"hash"}, set(server.command("KEYS", "*")))
        self.assertEqual("OK", server.command("FLUSHALL"))
        self.assertEqual(0, server.command("DBSIZE"))

    def test_errors_are_raised(self) -> None:
        server = self.server()
        with self.assertRaisesRegex(RuntimeError, "unknown command"):
            server.command("NONSENSE")

    def test_databases_are_apart(self) -> None:
        server = self.server()
        server.command("SET", "key", "value", database=3)
        self.assertIsNone(server.command("GET", "key"))
        self.assertEqual(b"value", server.command("GET", "key", database=3))

    def test_persistent_data_survive_a_stop_and_a_kill_on_the_same_port(self) -> None:
        server = self.server()
        url = server.url()
        server.command("SET", "stopped", "1")
        server.stop()
        with self.assertRaises(ConnectionRefusedError):
            server.command("PING")
        server.start()
        server.command("CONFIG", "SET", "appendfsync", "always")
        server.command("SET", "killed", "1")
        server.kill()
        server.start()
        self.assertEqual([b"1", b"1"], server.command("MGET", "stopped", "killed"))
        self.assertEqual(url, server.url())

    def test_other_data_end_with_the_process(self) -> None:
        server = self.server(persistent=False)
        server.command("SET", "key", "1")
        server.stop()
        server.start()
        self.assertEqual(0, server.command("DBSIZE"))

    def test_password(self) -> None:
        server = self.server(password='s"e c/ret')
        self.assertEqual(f"redis://:s%22e%20c%2Fret@{HOST}:{server.port}/2", server.url(2))
        self.assertEqual("PONG", server.command("PING"))
        with RedisClient(server.address) as nobody, self.assertRaisesRegex(RuntimeError, "NOAUTH"):
            nobody.call("PING")
        with self.assertRaisesRegex(RuntimeError, "WRONGPASS"):
            RedisClient(server.address, password="wrong")

    def test_acl_user(self) -> None:
        server = self.server(username="alice", password="secret")
        self.assertEqual(f"redis://alice:secret@{HOST}:{server.port}/0", server.url())
        self.assertEqual(b"alice", server.command("ACL", "WHOAMI"))
        for username in (None, "default", "bob"):
            with self.assertRaisesRegex(RuntimeError, "WRONGPASS"):
                RedisClient(server.address, username=username, password="secret")
        with RedisClient(server.address) as nobody, self.assertRaisesRegex(RuntimeError, "NOAUTH"):
            nobody.call("PING")
        self.assertRaises(ValueError, RedisServer, username="alice")

    def test_tls_and_nothing_else(self) -> None:
        server = self.server(tls=True, password="secret")
        self.assertEqual(f"rediss://:secret@localhost:{server.port}/0", server.url())
        self.assertEqual("PONG", server.command("PING"))
        with RedisClient(server.address) as plain, self.assertRaises(ConnectionError):
            plain.call("PING")
        with self.assertRaises(ssl.SSLCertVerificationError):
            RedisClient(server.address, tls=ssl.create_default_context())
        trusting = ssl.create_default_context(cafile=server.ca_path)
        with (
            socket.create_connection(server.address, PATIENCE) as connection,
            trusting.wrap_socket(connection, server_hostname=HOST) as secured,
        ):
            self.assertIsNotNone(secured.version())

    def test_a_paused_server_hangs_until_it_is_resumed(self) -> None:
        server = self.server()
        with server.client() as client:
            server.pause()
            server.pause()
            self.assertRaises(TimeoutError, server.command, "PING", timeout=SHORT)
            client.send("PING")
            server.resume()
            self.assertEqual("PONG", client.receive())

    def test_a_paused_server_can_be_stopped(self) -> None:
        server = self.server()
        server.command("SET", "key", "1")
        server.pause()
        server.stop()
        server.start()
        self.assertEqual(b"1", server.command("GET", "key"))

    def test_waits_for_its_port(self) -> None:
        server = self.server()
        server.stop()
        thief = socket.create_server(server.address)
        waiting = threading.Thread(target=server.start)
        waiting.start()
        try:
            self.wait_until(lambda: "Address already in use" in server.log)
        finally:
            thief.close()
            waiting.join(PATIENCE)
        self.assertEqual("PONG", server.command("PING"))

    def test_its_clients_can_be_killed(self) -> None:
        server = self.server()
        with server.client() as client:
            client.call("PING")
            self.assertEqual(1, server.command("CLIENT", "KILL", "TYPE", "normal"))
            self.assertRaises(ConnectionError, client.call, "PING")

    def test_hears_what_is_published(self) -> None:
        server = self.server()
        with server.client() as client:
            client.call("SUBSCRIBE", "news")
            self.assertEqual(1, server.command("PUBLISH", "news", "text"))
            self.assertEqual([b"message", b"news", b"text"], client.receive())

    def test_nothing_is_left_of_it(self) -> None:
        server = RedisServer(tls=True).start()
        folder = server.ca_path.parent
        server.close()
        server.close()
        self.assertFalse(folder.exists())
        self.assertRaises(ConnectionRefusedError, server.command, "PING")

    def test_a_test_is_skipped_without_it(self) -> None:
        require_redis(self)
        with mock.patch.dict(os.environ, PATH=""):
            self.assertRaises(unittest.SkipTest, require_redis, self)
            self.assertRaises(unittest.SkipTest, RedisServer)


class TcpProxyTests(RedisCase):
    def proxy(self, target: Address) -> TcpProxy:
        """Return a proxy that runs until the test's end."""
        proxy = TcpProxy(target)
        self.addCleanup(proxy.close)
        return proxy.start()

    def test_passes_on_what_is_sent(self) -> None:
        server = self.server(tls=True, password="secret")
        client = self.client(server, self.proxy(server.address))
        text = bytes(range(256)) * 4096
        self.assertEqual("OK", client.call("SET", "key", text))
        self.assertEqual(text, client.call("GET", "key"))

    def test_new_connections_follow_the_target_and_old_ones_stay(self) -> None:
        first, second = self.server(persistent=False), self.server(persistent=False)
        first.command("SET", "name", "first")
        second.command("SET", "name", "second")
        proxy = self.proxy(first.address)
        old = self.client(first, proxy)
        self.assertEqual(b"first", old.call("GET", "name"))
        proxy.target = second.address
        self.assertEqual(b"second", self.client(first, proxy).call("GET", "name"))
        self.assertEqual(b"first", old.call("GET", "name"))

    def test_a_target_that_is_down_closes_the_connection(self) -> None:
        server = self.server()
        proxy = self.proxy((HOST, free_port()))
        client = self.client(server, proxy)
        self.assertRaises(ConnectionError, client.call, "PING")

    def test_delays_in_both_directions(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        subscriber = self.client(server, proxy)
        subscriber.call("SUBSCRIBE", "news")
        proxy.delay = 0.01
        late = self.client(server, proxy)
        for number in range(20):
            late.send("ECHO", str(number))
        self.assertEqual([b"%d" % n for n in range(20)], [late.receive() for _ in range(20)])

        proxy.delay = NEVER
        with server.client(proxy.address, timeout=SHORT) as client:
            self.assertRaises(TimeoutError, client.call, "SET", "key", "is late")
        self.assertEqual(0, server.command("DBSIZE"))
        self.assertEqual(1, server.command("PUBLISH", "news", "is late"))
        subscriber.timeout = SHORT
        self.assertRaises(TimeoutError, subscriber.receive)
        proxy.delay = 0.0
        self.assertEqual("PONG", self.client(server, proxy).call("PING"))

    def test_cuts_all_connections_and_takes_new_ones(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        clients = [self.client(server, proxy) for _ in range(3)]
        for client in clients:
            client.call("PING")
        proxy.cut()
        self.assertEqual(0, proxy.connections)
        for client in clients:
            self.assertRaises(ConnectionError, client.call, "PING")
        self.assertEqual("PONG", self.client(server, proxy).call("PING"))

    def test_refuses_new_connections_only(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        old = self.client(server, proxy)
        old.call("PING")
        proxy.refuse = True
        self.assertRaises(ConnectionError, self.client(server, proxy).call, "PING")
        self.assertEqual("PONG", old.call("PING"))
        proxy.refuse = False
        self.assertEqual("PONG", self.client(server, proxy).call("PING"))

    def test_stalls_and_loses_nothing(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        client = self.client(server, proxy)
        client.call("PING")
        proxy.stall = True
        client.send("SET", "key", "kept")
        with server.client(proxy.address, timeout=SHORT) as other:
            self.assertRaises(TimeoutError, other.call, "PING")
        self.assertIsNone(server.command("GET", "key"))
        proxy.stall = False
        self.assertEqual("OK", client.receive())
        self.assertEqual(b"kept", server.command("GET", "key"))

    def test_the_end_of_one_side_ends_the_other(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        client, leaving = self.client(server, proxy), server.client(proxy.address)
        client.call("PING")
        leaving.call("PING")
        leaving.close()
        self.wait_until(lambda: proxy.connections == 1)
        server.kill()
        self.assertRaises(ConnectionError, client.call, "PING")
        client.close()
        self.wait_until(lambda: proxy.connections == 0)

    def test_is_gone_when_closed(self) -> None:
        server = self.server()
        proxy = self.proxy(server.address)
        client = self.client(server, proxy)
        client.call("PING")
        proxy.close()
        proxy.close()
        self.assertRaises(ConnectionError, client.call, "PING")
        self.assertRaises(ConnectionRefusedError, server.client, proxy.address)
        self.assertRaises(RuntimeError, proxy.cut)


class Admin:
    """An admin endpoint with a status for ``GET /readyz``, and 404 for all else.

    Attributes:
        status: what it answers.
    """

    def __init__(self) -> None:
        self.status = 200
        admin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(admin.status if self.path == "/readyz" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
                """Write nothing."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address: Address = (HOST, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop; connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class BalancerTests(RedisCase):
    def setUp(self) -> None:
        self.servers = [self.server(persistent=False) for _ in range(3)]
        self.admins = [Admin() for _ in self.servers]
        for number, (server, admin) in enumerate(zip(self.servers, self.admins, strict=True)):
            self.addCleanup(admin.close)
            server.command("SET", "number", str(number))
        self.pairs = [
            (server.address, admin.address)
            for server, admin in zip(self.servers, self.admins, strict=True)
        ]

    def balancer(self) -> Balancer:
        """Return a balancer that runs until the test's end."""
        balancer = Balancer(self.pairs)
        self.addCleanup(balancer.close)
        return balancer.start()

    def reached(self, balancer: Balancer, count: int) -> list[int]:
        """Return where so many connections end up."""
        numbers = []
        for _ in range(count):
            with self.servers[0].client(balancer.address) as client:
                numbers.append(int(client.call("GET", "number")))
        return numbers

    def wait_for_ready(self, balancer: Balancer, *numbers: int) -> None:
        wanted = tuple(self.servers[number].address for number in numbers)
        self.wait_until(lambda: balancer.ready == wanted)

    def test_goes_round_robin(self) -> None:
        numbers = self.reached(self.balancer(), 6)
        self.assertEqual([0, 1, 2], sorted(numbers[:3]))
        self.assertEqual(numbers[:3], numbers[3:])

    def test_avoids_who_is_not_ready_from_the_start(self) -> None:
        self.admins[1].status = 503
        self.assertEqual([0, 0, 2, 2], sorted(self.reached(self.balancer(), 4)))

    def test_follows_readiness_and_leaves_connections_alone(self) -> None:
        balancer = self.balancer()
        clients = [self.client(self.servers[0], balancer) for _ in self.servers]
        found = [client.call("GET", "number") for client in clients]
        self.admins[0].status = 503
        self.wait_for_ready(balancer, 1, 2)
        self.assertEqual({1, 2}, set(self.reached(balancer, 6)))
        self.assertEqual(found, [client.call("GET", "number") for client in clients])
        self.admins[0].status = 200
        self.wait_for_ready(balancer, 0, 1, 2)
        self.assertEqual({0, 1, 2}, set(self.reached(balancer, 3)))

    def test_an_admin_endpoint_that_is_gone_is_not_ready(self) -> None:
        balancer = self.balancer()
        self.admins[2].close()
        self.wait_for_ready(balancer, 0, 1)

    def test_passes_over_who_does_not_take_the_connection(self) -> None:
        balancer = self.balancer()
        self.servers[1].kill()
        self.assertEqual({0, 2}, set(self.reached(balancer, 6)))
        self.assertEqual(3, len(balancer.ready))

    def test_closes_connections_while_nobody_is_ready(self) -> None:
        balancer = self.balancer()
        for admin in self.admins:
            admin.status = 503
        self.wait_for_ready(balancer)
        self.assertRaises(ConnectionError, self.reached, balancer, 1)
