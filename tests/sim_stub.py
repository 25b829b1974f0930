"""A stand-in for the gateway that does what a test tells it, and the ways to it."""

import json
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request

from odingw.sim.roomtokens import JoinFault, JoinRefused
from odingw.sim.server import SimulatedServer
from odingw.sim.wire import Gateway
from odingw.tokens import AccessKey, SecretKey, parse, server_key

NOW: Final = 1_700_000_000.0
ADDRESS: Final = "sfu-1.test:4433"
MASTER_KEY: Final = b"a master key for tests"
ACCESS_KEY: Final = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")

CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization,Content-Type",
    "Access-Control-Request-Method": "POST",
    "Cache-Control": "no-store",
}


def temporary_folder(case: SynchronousTestCase) -> Path:
    """A folder that is gone after the test (pytest leaves ``mktemp`` of a test case behind)."""
    folder = tempfile.TemporaryDirectory()
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


class RpcFault(Exception):  # noqa: N818  -- it stands for an answer, nothing went wrong
    """What a stub answers with in place of a result."""

    def __init__(self, code: int, message: str, status: int = 200, **data: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, "data": data}


def room_token(
    address: str = ADDRESS, *, key: SecretKey | None = None, now: float = NOW, **claims: Any
) -> str:
    """A room token, good unless the arguments spoil it; a claim of None is left out."""
    said = {
        "uid": "alice",
        "cid": "acme",
        "rid": "lobby",
        "nsp": "acme",
        "adr": address,
        "sub": "connect",
        "aud": "sfu",
        "nbf": int(now),
        "exp": int(now) + 300,
        **claims,
    }
    payload = {name: value for name, value in said.items() if value is not None}
    return (key or server_key(MASTER_KEY, address)).sign_jwt(json.dumps(payload).encode())


class StubGateway(Resource):
    """The two APIs on one resource.

    Attributes:
        calls: method and params of every call.
        authorization: the header of every call.
        connections: the sockets that calls came over, by the caller's port.
        headers: of the last reply, on top of the usual ones; None takes one away.
        tasks: what the next report of a server is given, by address.
        report_interval: in milliseconds.
        overrides: what a method answers with instead: a result, or a ``RpcFault``.
        address: where ``Connect`` sends clients.
        spoilt: claims that room tokens get on top.
        raw: if given, the body of every reply.
        status: if given, the HTTP status of every reply.
    """

    isLeaf = True  # noqa: N815  -- Twisted's name

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []
        self.authorization: list[str] = []
        self.connections: set[int] = set()
        self.headers: dict[str, str | None] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.report_interval = 2000
        self.overrides: dict[str, Any] = {}
        self.spoilt: dict[str, Any] = {}
        self.address = ADDRESS
        self.raw: bytes | None = None
        self.status: int | None = None
        self._awaited: list[tuple[int, Deferred[None]]] = []

    def arrived(self, count: int) -> Deferred[None]:
        """Fires when so many reports have come."""
        awaited = Deferred[None]()
        self._awaited.append((count, awaited))
        return awaited

    def of(self, method: str) -> list[Any]:
        """The params of all calls of a method."""
        return [params for name, params in self.calls if name == method]

    @property
    def reports(self) -> list[Any]:
        """The params of all reports."""
        return self.of("sfu.Report")

    def render_GET(self, request: Request) -> bytes:  # noqa: N802  -- Twisted's name
        """Answer a ping."""
        return b"pong"

    def render_POST(self, request: Request) -> bytes:  # noqa: N802  -- Twisted's name
        """Answer a call that came over a socket."""
        self.connections.add(getattr(request.getClientAddress(), "port", 0))
        assert request.content is not None
        path, body = request.path or b"", request.content.read()
        status, headers, text = self.reply(path, request.getHeader(b"authorization"), body)
        request.setResponseCode(status)
        request.responseHeaders = headers
        return text

    def reply(
        self, path: bytes, authorization: bytes | None, body: bytes
    ) -> tuple[int, Headers, bytes]:
        """The reply to a call: HTTP status, headers, body."""
        call = json.loads(body)
        self.calls.append((call["method"], call["params"]))
        credentials = (authorization or b"").decode()
        self.authorization.append(credentials)
        said: dict[str, str | None] = {"Content-Type": "application/json"}
        said |= ({} if path.endswith(b"/internal") else CORS) | self.headers
        headers = Headers({name: [value] for name, value in said.items() if value is not None})
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        status = 200
        try:
            reply["result"] = self._answer(call["method"], call["params"], credentials)
        except RpcFault as fault:
            reply["error"] = fault.error
            status = fault.status
        text = json.dumps(reply).encode() if self.raw is None else self.raw
        return self.status or status, headers, text

    def _answer(self, method: str, params: Any, authorization: str) -> Any:
        override = self.overrides.get(method)
        if isinstance(override, RpcFault):
            raise override
        if override is not None:
            return override
        match method:
            case "sfu.GridConfig":
                return {"config": self.settings(params)}
            case "sfu.Report":
                for count, awaited in self._awaited:
                    if count == len(self.reports):
                        awaited.callback(None)
                return {"tasks": self.tasks.pop(params["public_endpoint"], [])}
            case "Connect":
                return self._connect(authorization)
        raise RpcFault(-32601, "Method not found")

    def settings(self, params: Any) -> str:
        """The server's own TOML with what a gateway must add."""
        jwk = server_key(MASTER_KEY, params["public_endpoint"]).private_jwk()
        members = ", ".join(
            f'{name} = "{getattr(jwk, name)}"' for name in ("kid", "kty", "crv", "x", "d")
        )
        return (
            f"{params['config']}\n[supervisor]\nreport_interval = {self.report_interval}\n"
            f"[authorization]\nkeys = [{{ {members} }}]\n"
        )

    def _connect(self, authorization: str) -> dict[str, str]:
        claims = json.loads(parse(authorization.removeprefix("Bearer ")).payload)
        address = self.address
        said = {"uid": claims["uid"], "rid": claims["rid"], **self.spoilt}
        return {"address": address, "token": room_token(address, now=claims["nbf"], **said)}


class StubResponse:
    """As much of an ``IResponse`` as is needed."""

    def __init__(self, code: int, headers: Headers, body: bytes) -> None:
        self.code = code
        self.headers = headers
        self._body = body

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802  -- Twisted's name
        """Give the body to somebody who reads it."""
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))


class StubAgent:
    """Leads to a stub gateway without a network, or nowhere.

    Attributes:
        down: whether every connection is refused.
        silent: whether no reply ever comes.
        cancelled: how many requests were given up while they waited.
    """

    def __init__(self, stub: StubGateway) -> None:
        self._stub = stub
        self.down = False
        self.silent = False
        self.cancelled = 0

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: Any = None,  # noqa: N803  -- Twisted's name
    ) -> Deferred[Any]:
        """Make a request."""
        assert method == b"POST"
        assert headers is not None
        if self.down:
            return fail(error.ConnectionRefusedError())
        if self.silent:
            return Deferred(self._note_cancellation)
        body = BytesIO()
        bodyProducer.startProducing(body)
        authorization = b"".join(headers.getRawHeaders(b"authorization", []))
        return succeed(StubResponse(*self._stub.reply(uri, authorization, body.getvalue())))

    def _note_cancellation(self, _request: Deferred[Any]) -> None:
        self.cancelled += 1


class World:
    """A stub gateway, the way to it, and a clock.

    Attributes:
        stub: the gateway.
        agent: the way to it.
        clock: begins at ``NOW``.
        gateway: the client under test.
    """

    def __init__(self) -> None:
        self.stub = StubGateway()
        self.agent = StubAgent(self.stub)
        self.clock = Clock()
        self.clock.advance(NOW)
        self.gateway = Gateway("http://gateway.test/", self.agent, self.clock)

    def server(self, address: str = ADDRESS, **options: Any) -> SimulatedServer:
        """A server that has not started."""
        return SimulatedServer(self.gateway, address, self.clock, **{"capacity": 10, **options})

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in steps, as it does."""
        self.clock.pump([step] * round(seconds / step))


class ServerCase(SynchronousTestCase):
    """A server and its stub gateway."""

    def setUp(self) -> None:
        self.world = World()
        self.stub = self.world.stub
        self.clock = self.world.clock

    def started(self, **options: Any) -> SimulatedServer:
        server = self.world.server(**options)
        self.successResultOf(server.start())
        return server

    def order(self, *tasks: dict[str, Any]) -> None:
        """Have tasks in the reply to the next report."""
        self.stub.tasks[ADDRESS] = list(tasks)

    def refusal(self, server: SimulatedServer, token: str, now: float = NOW) -> JoinFault:
        with self.assertRaises(JoinRefused) as caught:
            server.join(token, now)
        reason: JoinFault = caught.exception.reason
        return reason
