"""A small TURN client that waits for every answer."""

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Self

from odingw.turn import stun
from odingw.turn.stun import Address, Attribute, Kind, Message, Method

PATIENCE: Final = 30.0
"""Seconds after which an answer is given up."""

REPEAT: Final = 0.5
"""Seconds after which a request over UDP is sent again."""


class TurnError(Exception):
    """A server's error response.

    Attributes:
        code: its number, such as 401.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code


class TurnClient:
    """A client with one connection, and at most one allocation, of a TURN server.

    Args:
        address: the server's.
        username: of the credentials.
        password: of the credentials.
        transport: between client and server.
        new_id: makes transaction ids.
    """

    def __init__(
        self,
        address: Address,
        username: str = "",
        password: str = "",
        *,
        transport: Literal["udp", "tcp"] = "udp",
        new_id: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._username = username
        self._password = password
        self._realm = self._nonce = b""
        self._new_id = new_id
        self._framer = stun.Framer()
        self._frames: deque[bytes] = deque()
        self._arrived: deque[tuple[Address | int, bytes]] = deque()
        self._stream = transport == "tcp"
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        self._socket = socket.socket(type=kind)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; over UDP the server does not learn of it."""
        self._socket.close()

    def binding(self) -> Address:
        """Return this client's address, as the server sees it."""
        response = self._call(Message(Kind.REQUEST, Method.BINDING, self._id()))
        return self._address(response, Attribute.XOR_MAPPED_ADDRESS)

    def allocate(self) -> Address:
        """Get a relayed address and return it.

        Raises:
            TurnError: it is refused.
        """
        transport = bytes([stun.UDP, 0, 0, 0])
        attributes = ((Attribute.REQUESTED_TRANSPORT, transport),)
        try:
            self._call(Message(Kind.REQUEST, Method.ALLOCATE, self._id(), attributes))
        except TurnError as error:
            if error.code != 401:
                raise
        response = self._authenticated(Method.ALLOCATE, *attributes)
        return self._address(response, Attribute.XOR_RELAYED_ADDRESS)

    def refresh(self, lifetime: int) -> int:
        """Prolong the allocation, or end it with a lifetime of 0; return the granted lifetime."""
        value = lifetime.to_bytes(4)
        response = self._authenticated(Method.REFRESH, (Attribute.LIFETIME, value))
        return int.from_bytes(response.need(Attribute.LIFETIME))

    def permit(self, peer: Address) -> None:
        """Let a peer send to the relayed address (the port does not matter)."""
        self._authenticated(Method.CREATE_PERMISSION, peer=peer)

    def bind_channel(self, number: int, peer: Address) -> None:
        """Bind a channel to a peer, which also lets it send."""
        value = number.to_bytes(2) + bytes(2)
        self._authenticated(Method.CHANNEL_BIND, (Attribute.CHANNEL_NUMBER, value), peer=peer)

    def send(self, peer: Address, data: bytes) -> None:
        """Send to a peer in an indication."""
        id_ = self._id()
        attributes = (
            (Attribute.XOR_PEER_ADDRESS, stun.pack_address(peer, id_)),
            (Attribute.DATA, data),
        )
        self._write(stun.encode(Message(Kind.INDICATION, Method.SEND, id_, attributes)))

    def send_channel(self, number: int, data: bytes) -> None:
        """Send to the peer to which a channel is bound."""
        self._write(stun.pack_channel(number, data, padded=self._stream))

    def receive(self) -> tuple[Address | int, bytes]:
        """Wait for data from a peer: its address or, if there is one, its channel, and the data."""
        while not self._arrived:
            self._sort(self._read())
        return self._arrived.popleft()

    def _authenticated(
        self,
        method: Method,
        *attributes: tuple[Attribute, bytes],
        peer: Address | None = None,
    ) -> Message:
        id_ = self._id()
        if peer is not None:
            attributes += ((Attribute.XOR_PEER_ADDRESS, stun.pack_address(peer, id_)),)
        attributes += (
            (Attribute.USERNAME, self._username.encode()),
            (Attribute.REALM, self._realm),
            (Attribute.NONCE, self._nonce),
        )
        key = stun.long_term_key(self._username, self._realm.decode(), self._password)
        return self._call(Message(Kind.REQUEST, method, id_, attributes), key)

    def _call(self, request: Message, key: bytes | None = None) -> Message:
        """Send a request and return its success response.

        Raises:
            TurnError: it is an error response; realm and nonce of it are kept.
        """
        raw = stun.encode(request, key=key)
        self._write(raw)
        end = time.monotonic() + PATIENCE
        response = None
        while response is None:
            if time.monotonic() > end:
                raise AssertionError("no answer")
            self._socket.settimeout(PATIENCE if self._stream else REPEAT)
            try:
                frame = self._read()
            except TimeoutError:
                self._write(raw)
            else:
                response = self._sort(frame, request)
            finally:
                self._socket.settimeout(PATIENCE)
        if response.kind == Kind.ERROR:
            self._realm = response.get(Attribute.REALM) or self._realm
            self._nonce = response.get(Attribute.NONCE) or self._nonce
            raise TurnError(*stun.unpack_error(response.need(Attribute.ERROR_CODE)))
        if key is not None and not stun.verify(frame, key):
            raise AssertionError("the response is not the server's")
        return response

    def _sort(self, frame: bytes, request: Message | None = None) -> Message | None:
        """Return the response to a request; keep data."""
        if frame[0] & 0xC0:
            self._arrived.append(stun.unpack_channel(frame))
            return None
        message = stun.decode(frame)
        if request is not None and message.answers(request):
            return message
        if message.kind == Kind.INDICATION and message.method == Method.DATA:
            peer = self._address(message, Attribute.XOR_PEER_ADDRESS)
            self._arrived.append((peer, message.need(Attribute.DATA)))
        return None

    def _id(self) -> bytes:
        return self._new_id(stun.TRANSACTION_BYTES)

    @staticmethod
    def _address(message: Message, attribute: Attribute) -> Address:
        return stun.unpack_address(message.need(attribute), message.transaction)

    def _write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _read(self) -> bytes:
        """Wait for the next message."""
        if not self._stream:
            return self._socket.recv(65536)
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                raise AssertionError("the server closed the connection")
            self._frames.extend(self._framer.feed(data))
        return self._frames.popleft()
