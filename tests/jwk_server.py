"""Signing keys of an issuer, and a real server of its JWK set, which misbehaves on demand."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

reactor: Any = global_reactor

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
TYPES = {"RSA": RSA, "P-256": ("ES256",), "P-384": ("ES384",), "Ed25519": ("EdDSA",)}
"""What each type of key verifies; ``Ed25519`` is another name of ``EdDSA``."""

Jwk: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[["Connection"], object]


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """A key of one of ``TYPES``, the same one for the same number."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())


def spki(key: Any) -> bytes:
    """A key's public half in DER."""
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def spki_text(kind: str, number: int = 0) -> str:
    """As it stands in the configuration."""
    return b64encode(spki(private_key(kind, number))).decode()


def public_jwk(kind: str, number: int = 0, **members: object) -> Jwk:
    """A key's public half as a JWK without ``kid``, but for the members given."""
    key = private_key(kind, number).public_key()
    algorithm: Any = {"RSA": RSAAlgorithm, "Ed25519": OKPAlgorithm}.get(kind, ECAlgorithm)
    found = algorithm.to_jwk(key, as_dict=True)
    found.pop("key_ops", None)
    return {**found, **members}


def sign(
    claims: Mapping[str, object],
    algorithm: str,
    number: int = 0,
    **headers: object,
) -> str:
    """A JWT of the key of that number, of the type that the algorithm wants."""
    [kind] = (kind for kind, algorithms in TYPES.items() if algorithm in algorithms)
    return jwt.encode(dict(claims), private_key(kind, number), algorithm, headers=headers)


class Connection(Protocol):
    """One request of the client, whose answer the test chooses.

    Attributes:
        request: what it sent, up to the empty line.
        lost: fires when the client has closed the connection.
    """

    def __init__(self, server: "JwkServer") -> None:
        self.request = b""
        self.lost: Deferred[None] = Deferred()
        self._server = server

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        self.request += data
        if self.request.endswith(b"\r\n\r\n"):
            self._server.requested(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  # likewise
        self.lost.callback(None)

    def write(self, data: bytes) -> None:
        """Send a piece of the answer."""
        transport: Any = self.transport
        transport.write(data)

    def repeat(self, data: bytes) -> None:
        """Send the same as fast as the client takes it, without end."""
        transport: Any = self.transport
        transport.registerProducer(Endless(transport, data), streaming=True)

    def close(self) -> None:
        """Close the connection."""
        transport: Any = self.transport
        transport.loseConnection()


@implementer(IPushProducer)
class Endless:
    """Writes the same again and again, as long as the transport takes it."""

    def __init__(self, transport: Any, data: bytes) -> None:
        self._loop = LoopingCall(transport.write, data)
        self.resumeProducing()

    def resumeProducing(self) -> None:  # noqa: N802  # IPushProducer's name
        if not self._loop.running:
            self._loop.start(0)

    def pauseProducing(self) -> None:  # noqa: N802  # likewise
        if self._loop.running:
            self._loop.stop()

    stopProducing = pauseProducing  # noqa: N815  # likewise


class JwkServer:
    """A server on the loopback interface.

    Args:
        test: stops it at the end.
        context: for TLS.

    Attributes:
        answer: what to do with a request.
        connections: all there were.
        origin: scheme, host and port.
    """

    def __init__(self, test: TestCase, context: Any = None) -> None:
        self.answer: Answer = whole(b"")
        self.connections: list[Connection] = []
        self._waiting: list[Deferred[Connection]] = []
        factory = Factory.forProtocol(lambda: Connection(self))
        if context is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
        test.addCleanup(port.stopListening)
        self.origin = f"{'https' if context else 'http'}://127.0.0.1:{port.getHost().port}"

    def requested(self, connection: Connection) -> None:
        """Take a request."""
        self.connections.append(connection)
        self.answer(connection)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(connection)

    def next_request(self) -> Deferred[Connection]:
        """Fires with the next request, after its answer has begun."""
        waiting: Deferred[Connection] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def serve(self, *keys: Jwk) -> None:
        """Answer with a JWK set from now on."""
        self.answer = whole(document(keys))


def document(keys: Sequence[Jwk]) -> bytes:
    """A JWK set."""
    return json.dumps({"keys": list(keys)}).encode()


def head(status: str = "200 OK", **headers: object) -> bytes:
    """The beginning of an answer; underscores in names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(body: bytes, status: str = "200 OK", **headers: object) -> Answer:
    """Answer with a body of a known length."""
    return lambda connection: connection.write(
        head(status, content_length=len(body), **headers) + body
    )


def start(data: bytes) -> Answer:
    """Begin to answer, and leave it at that."""
    return lambda connection: connection.write(data)


def cut(data: bytes) -> Answer:
    """Answer and close the connection."""

    def answer(connection: Connection) -> None:
        connection.write(data)
        connection.close()

    return answer


def endless(beginning: bytes, data: bytes) -> Answer:
    """Begin to answer, and repeat something without end."""

    def answer(connection: Connection) -> None:
        connection.write(beginning)
        connection.repeat(data)

    return answer
