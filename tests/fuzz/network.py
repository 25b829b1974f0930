"""STUN: messages, streams of them, and which of them are answers to a question."""

import struct
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from odingw.turn import stun
from odingw.turn.probe import Outcome, Place, Prober
from odingw.turn.stun import Attribute, Framer, Message, Method
from tests.turn_net import Net

TRANSACTION: Final = b"TRANSACTION!"
"""The id of the question, so that the corpus can hold answers to it."""

PLACE: Final = ("192.0.2.1", 3478)


def message(data: bytes) -> None:
    """A message, and all that can be read out of one."""
    _read_parts(data)
    _cut(data)
    try:
        found = stun.decode(data)
    except ValueError:
        return
    assert len(data) % 4 == 0
    again = stun.decode(stun.encode(found)) if _can_encode(found) else found
    assert again == found, "written and read again, it is another one"
    stun.verify(data, b"key")
    for number, value in found.attributes:
        if number == Attribute.ERROR_CODE:
            _read_error(value)


def _can_encode(found: Message) -> bool:
    """FINGERPRINT and integrity are computed, not copied."""
    return not any(number == Attribute.FINGERPRINT for number, _ in found.attributes)


def _read_error(value: bytes) -> None:
    try:
        code, _ = stun.unpack_error(value)
    except ValueError:
        return
    assert 300 <= code < 700


def _read_parts(data: bytes) -> None:
    """The same bytes as the value of an attribute, and as ChannelData."""
    _read_error(data)
    try:
        address = stun.unpack_address(data, TRANSACTION)
    except ValueError:
        pass
    else:
        packed = stun.pack_address(address, TRANSACTION)
        assert packed[1:] == data[1:], "the address is another one"
    try:
        number, content = stun.unpack_channel(data)
    except ValueError:
        return
    assert stun.pack_channel(number, content, padded=False) == data[: 4 + len(content)]


def _frames(pieces: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """Return the frames of a stream, and whether it could be read to its end."""
    framer, frames = Framer(), []
    try:
        for piece in pieces:
            for frame in framer.feed(piece):
                frames.append(frame)  # noqa: PERF402  -- those before an error count
            assert len(framer._data) < stun.HEADER_BYTES + 0x10004
    except ValueError:
        return frames, False
    return frames, True


def _cut(data: bytes) -> None:
    """A stream says the same, however it is cut."""
    whole = _frames(iter([data]))
    bytewise = _frames(data[index : index + 1] for index in range(len(data)))
    assert whole == bytewise, "it matters how the stream is cut"
    assert data.startswith(b"".join(whole[0]))


def is_answer(data: bytes) -> bool:
    """RFC 8489, section 5, in a few lines: a response to our Binding request."""
    if len(data) < 20 or len(data) % 4:
        return False
    kind, length, cookie = struct.unpack_from(">HHI", data)
    if kind not in (0x0101, 0x0111) or cookie != 0x2112A442 or length != len(data) - 20:
        return False
    start = 20
    while start < len(data):
        number, size = struct.unpack_from(">HH", data, start)
        if start + 4 + size > len(data):
            return False
        if number == 0x8028:
            value = (crc32(data[:start]) ^ 0x5354554E).to_bytes(4)
            if start + 8 != len(data) or data[start + 4 :] != value:
                return False
        start += 4 + size + -size % 4
    return data[8:20] == TRANSACTION


def _outcome(asking: Deferred[Outcome]) -> Outcome:
    got: list[Any] = []
    asking.addBoth(got.append)
    if isinstance(got[0], Failure):
        got[0].raiseException()
    outcome: Outcome = got[0]
    return outcome


def answer(data: bytes) -> None:
    """What comes back from a server that was asked whether it is there."""
    _datagram(data)
    _stream(data)


def _datagram(data: bytes) -> None:
    net = Net()
    net.servers[PLACE] = lambda _, address: [(data, address), (data, ("192.0.2.9", 3478))]
    prober = Prober(net, 0.5, lambda count: TRANSACTION[:count])
    asking = Deferred.fromCoroutine(prober.ask(Place(*PLACE, "udp")))
    net.go_on(3)
    outcome = _outcome(asking)
    assert (outcome.rtt is not None) == is_answer(data), outcome
    assert all(sent.method == Method.BINDING for sent, _ in net.sent)


def _stream(data: bytes) -> None:
    net = Net()
    prober = Prober(net, 0.5, lambda count: TRANSACTION[:count])
    asking = Deferred.fromCoroutine(prober.ask(Place(*PLACE, "tcp")))
    factory: Any = net.tcpClients[0][2]
    transport = _Transport()
    protocol = factory.buildProtocol(None)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        if not transport.ended:
            protocol.dataReceived(piece)
    transport.end()
    net.go_on(3)
    frames, _ = _frames(iter([data]))
    expected = False
    for frame in frames:
        expected = expected or is_answer(frame)
        try:
            stun.decode(frame)
        except ValueError:
            break
    assert (_outcome(asking).rtt is not None) == expected


class _Transport(StringTransport):
    """A connection that ends when it is told to."""

    ended = False
    protocol: Any = None

    def end(self) -> None:
        """End, once."""
        if not self.ended:
            self.ended = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """End."""
        self.end()

    def loseConnection(self) -> None:  # noqa: N802  -- Twisted's name
        """End."""
        self.end()
