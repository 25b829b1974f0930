"""The simulation's client of the gateway: what it accepts, and what it complains about."""

from base64 import b64encode
from typing import Any, cast

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import (
    DefaultOpenSSLContextFactory,
)
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from odingw.sim.server import SimulatedServer
from odingw.sim.wire import INTERNAL, Gateway, GatewayError, Misbehaviour, Unreachable
from tests.sim_stub import ADDRESS, RpcFault, StubGateway, World, temporary_folder


class CallTests(SynchronousTestCase):
    """One call against a stub in memory."""

    def setUp(self) -> None:
        self.world = World()
        self.stub = self.world.stub

    def call(self, method: str = "sfu.Report", path: str = INTERNAL) -> Deferred[Any]:
        return self.world.gateway.call(method, {"public_endpoint": ADDRESS}, path=path)

    def test_result(self) -> None:
        self.assertEqual(self.successResultOf(self.call()), {"tasks": []})
        self.assertEqual(self.stub.calls, [("sfu.Report", {"public_endpoint": ADDRESS})])
        self.assertEqual(self.stub.authorization, [""])

    def test_url(self) -> None:
        """The URL may name a user, a password and a pool; neither of the first two stays in it."""
        gateway = Gateway(
            "http://sfu:a%3Ab@gateway.test:7000/eu", self.world.agent, self.world.clock
        )
        self.assertEqual(gateway.url, "http://gateway.test:7000/eu/")
        self.assertNotIn("a:b", repr(gateway))
        self.successResultOf(gateway.call("sfu.Report", {"public_endpoint": "x"}, path=INTERNAL))
        self.assertEqual(self.stub.authorization, ["Basic " + b64encode(b"sfu:a:b").decode()])

    def test_wrong_url(self) -> None:
        for url in ("gateway.test:7000", "ftp://gateway.test/", "http:///internal"):
            with self.assertRaises(ValueError, msg=url):
                Gateway(url, self.world.agent, self.world.clock)

    def test_token_beats_password(self) -> None:
        gateway = Gateway(
            "http://gateway.test/",
            self.world.agent,
            self.world.clock,
            username="sfu",
            password="secret",
        )
        self.successResultOf(
            gateway.call("sfu.Report", {"public_endpoint": "x"}, token="a.b.c", path=INTERNAL)
        )
        self.assertEqual(self.stub.authorization, ["Bearer a.b.c"])

    def test_error(self) -> None:
        """An error is told with everything that it carries."""
        self.stub.overrides["sfu.Report"] = RpcFault(
            -32600, "peer limit exceeded", reason="peer_limit_exceeded", retry_after=2.5
        )
        error = self.failureResultOf(self.call(), GatewayError).value
        self.assertEqual(
            (error.code, error.message, error.reason, error.retry_after, error.status),
            (-32600, "peer limit exceeded", "peer_limit_exceeded", 2.5, 200),
        )
        self.assertFalse(error.permanent)

    def test_permanent(self) -> None:
        """Whether there is any use in trying again."""
        for code, status, permanent in (
            (-32001, 401, True),
            (-32003, 403, True),
            (-32602, 200, True),
            (-32603, 500, False),
            (-32053, 503, False),
        ):
            self.stub.headers = {"WWW-Authenticate": "Basic"}
            self.stub.overrides["sfu.Report"] = RpcFault(code, "no", status)
            error = self.failureResultOf(self.call(), GatewayError).value
            self.assertEqual(error.permanent, permanent, code)

    def test_unreachable(self) -> None:
        self.world.agent.down = True
        self.failureResultOf(self.call(), Unreachable)

    def test_timeout(self) -> None:
        """A reply that does not come in time is given up."""
        self.world.agent.silent = True
        call = self.call()
        self.world.clock.advance(29.9)
        self.assertNoResult(call)
        self.world.clock.advance(0.1)
        self.assertIn("30 s", str(self.failureResultOf(call, Unreachable).value))
        self.assertEqual(self.world.agent.cancelled, 1)

    def test_proxy(self) -> None:
        """A proxy whose gateway is away speaks no JSON-RPC; that is not the gateway's fault."""
        self.stub.status, self.stub.raw = 502, b"<h1>Bad Gateway</h1>"
        self.failureResultOf(self.call(), Unreachable)

    def test_misbehaviour(self) -> None:
        """A reply that breaks the wire reference is none, and the failure says where."""
        fault = b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32001,"message":"no"}}'
        for raw, status, said in (
            (b"", 200, "JSON-RPC"),
            (b"<h1>hello</h1>", 200, "JSON-RPC"),
            (b"[]", 200, "JSON-RPC"),
            (b'{"jsonrpc":"2.0","result":{}}', 200, "id"),
            (b'{"jsonrpc":"2.0","result":{},"id":77}', 200, "call 77"),
            (b'{"jsonrpc":"2.0","result":{},"id":null}', 200, "call None"),
            (b'{"jsonrpc":"1.0","result":{},"id":%d}', 200, "1.0"),
            (b'{"jsonrpc":"2.0","id":%d}', 200, "either"),
            (b'{"jsonrpc":"2.0","result":{},"error":{"code":1,"message":""},"id":%d}', 200, "eith"),
            (b'{"jsonrpc":"2.0","result":{},"id":%d}', 500, "HTTP 500"),
            (b'{"jsonrpc":"2.0","result":{},"id":%d,"extra":1}', 200, "extra"),
            (fault, 200, "401 expected"),
            (fault, 401, "www-authenticate"),
            (fault.replace(b"-32001", b'"-32001"'), 401, "code"),
            (fault.replace(b'"no"', b'"no","data":{"reason":1}'), 401, "www-authenticate"),
        ):
            number = len(self.stub.calls) + 1
            self.stub.raw = raw.replace(b"%d", str(number).encode())
            self.stub.status = status
            failure = self.failureResultOf(self.call(), Misbehaviour)
            self.assertIn(said, str(failure.value), raw)

    def test_misplaced_headers(self) -> None:
        """The client API lets web pages in, the server API never does, both say what they send."""
        for path, name, value in (
            ("", "Access-Control-Allow-Origin", None),
            ("", "Access-Control-Allow-Headers", "Authorization"),
            ("", "Cache-Control", None),
            ("", "Content-Type", "text/html"),
            ("internal", "Access-Control-Allow-Origin", "*"),
            ("pool/internal", "Access-Control-Allow-Origin", "*"),
        ):
            self.stub.headers = {}
            self.successResultOf(self.call(path=path))
            self.stub.headers = {name: value}
            self.failureResultOf(self.call(path=path), Misbehaviour)


class ConnectionTests(TestCase):
    """Reports over real sockets."""

    def setUp(self) -> None:
        # zope interfaces, which a type checker cannot see through.
        self.reactor = cast("Any", reactor)
        self.stub = StubGateway()
        self.stub.report_interval = 10
        self.port = self.reactor.listenTCP(0, Site(self.stub), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def connections(self, *, persistent: bool) -> int:
        """How many connections a server makes for its settings and some reports."""
        gateway = Gateway.over(
            self.reactor, f"http://127.0.0.1:{self.port.getHost().port}", persistent=persistent
        )
        server = SimulatedServer(gateway, ADDRESS, self.reactor, capacity=10)
        await server.start()
        await self.stub.arrived(4)
        await server.stop()
        await gateway.close()
        self.assertEqual(server.misbehaviours, [])
        return len(self.stub.connections)

    async def test_kept(self) -> None:
        self.assertEqual(await self.connections(persistent=True), 1)

    async def test_tls(self) -> None:
        """Over TLS the gateway must prove that it is the one in the URL."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        folder = temporary_folder(self)
        key, chain = str(folder / "key.pem"), str(folder / "chain.pem")
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(chain)
        context = DefaultOpenSSLContextFactory(key, chain)
        port = self.reactor.listenSSL(0, Site(self.stub), context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        trusted = str(folder / "authority.pem")
        authority.cert_pem.write_to_path(trusted)
        cases: tuple[tuple[str, bool | str, bool], ...] = (
            ("127.0.0.1", trusted, True),
            ("localhost", trusted, True),
            ("127.0.0.1", True, False),
            ("127.0.0.1", False, True),
        )
        for host, verify, reached in cases:
            gateway = Gateway.over(
                self.reactor,
                f"https://{host}:{port.getHost().port}/",
                persistent=False,
                verify=verify,
            )
            call = gateway.call("sfu.Report", {"public_endpoint": ADDRESS}, path=INTERNAL)
            if reached:
                self.assertEqual(await call, {"tasks": []}, host)
            else:
                await self.assertFailure(call, Unreachable)
            await gateway.close()

    async def test_one_per_call(self) -> None:
        self.assertEqual(await self.connections(persistent=False), len(self.stub.calls))
