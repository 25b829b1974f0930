"""A blocking TURN client (RFC 8656) that does one thing: allocate, and give it back.

It authenticates with long-term credentials (RFC 8489, section 9.2), over UDP, TCP or TLS.
"""

import os
import socket
import ssl
import time
from collections import deque
from contextlib import suppress
from typing import Final, Self

from msgspec import Struct, structs

from odingw.turn import stun
from odingw.turn.stun import Address, Attribute, Kind, Message, Method
from odingw.turn.uris import TurnUri

_FIRST_REPEAT: Final = 0.5
"""Seconds after which a request over UDP is sent again; doubled each time (RFC 8489, 6.2.1)."""

_TRY_ALTERNATE: Final = 300
_STALE_NONCE: Final = 438
_UNAUTHORIZED: Final = 401
_LARGEST: Final = 65536


class TurnFailed(Exception):  # noqa: N818  -- it reads as what happened
    """A server did not do what it was asked to.

    Attributes:
        code: of its error response (RFC 8656, section 19); None: there was none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Proof(Struct, frozen=True):
    """What came of it.

    Attributes:
        mapped: the client's address as the server sees it.
        relayed: the address that the server gave; None: only a Binding was asked for.
        rtt: seconds of one round trip, the connection not included.
        software: what the server calls itself; empty: it does not say.
        alternate: the server that all this is of, where the one that was asked sent the client on.
    """

    mapped: Address | None
    relayed: Address | None
    rtt: float
    software: str
    alternate: Address | None = None


class _SentOn(Exception):  # noqa: N818  -- it reads as what happened
    """A server wants that another one is asked (RFC 8489, section 10).

    Attributes:
        address: where that is.
        domain: what its certificate must be for; empty: the same as before.
    """

    def __init__(self, address: Address, domain: str) -> None:
        super().__init__(address)
        self.address = address
        self.domain = domain


def prove(uri: TurnUri, username: str, password: str, timeout: float, tls: ssl.SSLContext) -> Proof:
    """Allocate at a TURN server and release it; ask a STUN server for a Binding.

    A server that sends on to another (ALTERNATE-SERVER) is followed, once (RFC 8656, 7.4).

    Args:
        uri: the server; DTLS is not spoken.
        username: of the credentials.
        password: of the credentials.
        timeout: seconds for all of it.
        tls: for ``turns:`` and ``stuns:``.

    Raises:
        TurnFailed: it does not work; the text says why.
    """
    credentials, end = (username, password), time.monotonic() + timeout
    try:
        return _ask(uri, uri.host, credentials, end, tls)
    except _SentOn as sent:
        there = structs.replace(uri, host=sent.address[0], port=sent.address[1])
        to = f"sent on to {address_text(sent.address)}"
        try:
            proof = _ask(there, sent.domain or uri.host, credentials, end, tls)
        except _SentOn:
            raise TurnFailed(f"{to}, which sends on too", _TRY_ALTERNATE) from None
        except TurnFailed as error:
            raise TurnFailed(f"{to}: {error}", error.code) from None
        return structs.replace(proof, alternate=sent.address)


def address_text(address: Address) -> str:
    """Return an address as URIs have it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ask(
    uri: TurnUri, name: str, credentials: tuple[str, str], end: float, tls: ssl.SSLContext
) -> Proof:
    """Ask one server.

    Args:
        uri: the server.
        name: what its certificate must be for.
        credentials: user name and password.
        end: when to give up, by the monotonic clock.
        tls: how its certificate is judged.

    Raises:
        TurnFailed: it does not work.
        _SentOn: it wants that another one is asked.
    """
    try:
        with _connect(uri, name, end, tls) as connection:
            client = _Client(connection, *credentials)
            return client.binding() if uri.scheme.startswith("stun") else client.allocation()
    except ssl.SSLCertVerificationError as error:
        raise TurnFailed(f"certificate: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise TurnFailed(f"TLS: {error.reason or error}") from None
    except TimeoutError:
        raise TurnFailed("no answer in time") from None
    except socket.gaierror as error:
        raise TurnFailed(f"name lookup: {error.strerror}") from None
    except OSError as error:
        raise TurnFailed((error.strerror or str(error)).lower()) from None
    except ValueError as error:
        raise TurnFailed(f"malformed answer: {error}") from None


def _connect(uri: TurnUri, name: str, end: float, tls: ssl.SSLContext) -> "_Connection":
    """Connect to the first address of a server that takes it."""
    stream = uri.transport == "tcp"
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    failure: OSError = OSError("its name has no address")
    for family, _, _, _, where in socket.getaddrinfo(uri.host, uri.port, type=kind):
        plain = socket.socket(family, kind)
        try:
            plain.settimeout(_left(end))
            plain.connect(where)
            if uri.scheme.endswith("s"):
                plain = tls.wrap_socket(plain, server_hostname=name)
        except OSError as error:
            plain.close()
            failure = error
        else:
            return _Connection(plain, end, stream=stream)
    raise failure


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Connection:
    """Requests and their responses, over datagrams or a stream."""

    def __init__(self, connected: socket.socket, end: float, *, stream: bool) -> None:
        self._socket = connected
        self._end = end
        self._stream = stream
        self._framer = stun.Framer()
        self._frames: deque[bytes] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: Message, key: bytes | None = None) -> tuple[Message, bytes, float]:
        """Return the response, its bytes, and the seconds from the latest sending to it."""
        raw = stun.encode(request, key=key)
        repeat = _FIRST_REPEAT
        while True:
            sent = time.monotonic()
            self._socket.settimeout(_left(self._end))
            self._socket.sendall(raw)
            again = self._end if self._stream else min(self._end, sent + repeat)
            try:
                while True:
                    frame = self._read(again)
                    with suppress(ValueError):
                        message = stun.decode(frame)
                        if message.answers(request):
                            return message, frame, time.monotonic() - sent
            except TimeoutError:
                repeat *= 2

    def _read(self, until: float) -> bytes:
        self._socket.settimeout(_left(until))
        if not self._stream:
            return self._socket.recv(_LARGEST)
        while not self._frames:
            data = self._socket.recv(_LARGEST)
            if not data:
                raise OSError("the server closed the connection")
            self._frames.extend(self._framer.feed(data))
            self._socket.settimeout(_left(until))
        return self._frames.popleft()


class _Client:
    """What is asked of a server over one connection."""

    def __init__(self, connection: _Connection, username: str, password: str) -> None:
        self._connection = connection
        self._username = username
        self._password = password
        self._realm = self._nonce = b""

    def binding(self) -> Proof:
        """Ask for the client's own address."""
        response, _, rtt = self._connection.ask(_request(Method.BINDING))
        return _proof(_success(response), rtt, relayed=False)

    def allocation(self) -> Proof:
        """Allocate, and release it again."""
        transport = (Attribute.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0]))
        response, _, rtt = self._connection.ask(_request(Method.ALLOCATE, transport))
        if response.kind == Kind.ERROR and _error(response)[0] == _UNAUTHORIZED:
            self._challenged(response)
            response, rtt = self._authenticated(Method.ALLOCATE, transport)
        proof = _proof(_success(response), rtt, relayed=True)
        released, _ = self._authenticated(Method.REFRESH, (Attribute.LIFETIME, bytes(4)))
        _success(released)
        return proof

    def _authenticated(
        self, method: Method, *attributes: tuple[Attribute, bytes]
    ) -> tuple[Message, float]:
        response, frame, rtt = self._ask(method, attributes)
        if response.kind == Kind.ERROR and _error(response)[0] == _STALE_NONCE:
            self._challenged(response)
            response, frame, rtt = self._ask(method, attributes)
        if response.kind == Kind.SUCCESS and not stun.verify(frame, self._key()):
            raise TurnFailed("the answer is not signed with the password")
        return response, rtt

    def _ask(
        self, method: Method, attributes: tuple[tuple[Attribute, bytes], ...]
    ) -> tuple[Message, bytes, float]:
        request = _request(
            method,
            *attributes,
            (Attribute.USERNAME, self._username.encode()),
            (Attribute.REALM, self._realm),
            (Attribute.NONCE, self._nonce),
        )
        return self._connection.ask(request, self._key())

    def _key(self) -> bytes:
        return stun.long_term_key(self._username, self._realm.decode(), self._password)

    def _challenged(self, response: Message) -> None:
        self._realm = response.get(Attribute.REALM) or self._realm
        self._nonce = response.need(Attribute.NONCE)


def _request(method: Method, *attributes: tuple[Attribute, bytes]) -> Message:
    return Message(Kind.REQUEST, method, os.urandom(stun.TRANSACTION_BYTES), attributes)


def _error(response: Message) -> tuple[int, str]:
    return stun.unpack_error(response.need(Attribute.ERROR_CODE))


def _success(response: Message) -> Message:
    if response.kind == Kind.ERROR:
        code, text = _error(response)
        alternate = response.get(Attribute.ALTERNATE_SERVER)
        if code == _TRY_ALTERNATE and alternate is not None:
            domain = stun.unpack_text(response.get(Attribute.ALTERNATE_DOMAIN) or b"")
            raise _SentOn(stun.unpack_plain_address(alternate), domain)
        why = "; the TURN server has another secret or user" if code == _UNAUTHORIZED else ""
        raise TurnFailed(f"error {code} {text}".strip() + why, code)
    return response


def _proof(response: Message, rtt: float, *, relayed: bool) -> Proof:
    mapped = response.get(Attribute.XOR_MAPPED_ADDRESS)
    id_ = response.transaction
    return Proof(
        None if mapped is None else stun.unpack_address(mapped, id_),
        stun.unpack_address(response.need(Attribute.XOR_RELAYED_ADDRESS), id_) if relayed else None,
        rtt,
        stun.unpack_text(response.get(Attribute.SOFTWARE) or b""),
    )
