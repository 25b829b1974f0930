"""STUN messages: the RFC's samples, round trips, and bytes that are no messages."""

from itertools import pairwise
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.turn import stun
from odingw.turn.stun import Attribute, Framer, Kind, Message, Method, decode, encode, verify

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"

REQUEST = bytes.fromhex(
    "00010058 2112a442 b7e7a701bc34d686fa87dfae"
    "80220010 5354554e207465737420636c69656e74"
    "00240004 6e0001ff"
    "80290008 932ff9b151263b36"
    "00060009 6576746a3a68367659 202020"
    "00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004 e57a3bcf"
)
"""RFC 5769, section 2.1."""

RESPONSE_4 = bytes.fromhex(
    "0101003c 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f72 20"
    "00200008 0001a147e112a643"
    "00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004 c07d4c96"
)
"""RFC 5769, section 2.2."""

RESPONSE_6 = bytes.fromhex(
    "01010048 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f72 20"
    "00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014 a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004 c8fb0b4c"
)
"""RFC 5769, section 2.3."""

LONG_TERM_REQUEST = bytes.fromhex(
    "00010060 2112a442 78ad3433c6ad72c029da412e"
    "00060012 e3839ee38388e383aae38383e382afe382b9 0000"
    "0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341"
    "0014000b 6578616d706c652e6f7267 00"
    "00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
"""RFC 5769, section 2.4."""

SAMPLES = (REQUEST, RESPONSE_4, RESPONSE_6, LONG_TERM_REQUEST)
BINDING = bytes.fromhex("00010000 2112a442") + ID

messages = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    method=st.integers(0, 0xFFF),
    transaction=st.binary(min_size=12, max_size=12),
    attributes=st.lists(
        st.tuples(
            st.integers(0, 0xFFFF).filter(
                lambda number: number not in (Attribute.MESSAGE_INTEGRITY, Attribute.FINGERPRINT)
            ),
            st.binary(max_size=40),
        ),
        max_size=5,
    ).map(tuple),
)
addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 0xFFFF))


def with_length(data: bytes) -> bytes:
    """Return a message with the right length in its header."""
    return data[:2] + (len(data) - stun.HEADER_BYTES).to_bytes(2) + data[4:]


class SampleTests(SynchronousTestCase):
    def test_request(self) -> None:
        message = decode(REQUEST)
        self.assertEqual((message.kind, message.method), (Kind.REQUEST, Method.BINDING))
        self.assertEqual(message.transaction, ID)
        self.assertEqual(message.get(Attribute.SOFTWARE), b"STUN test client")
        self.assertEqual(message.get(Attribute.USERNAME), b"evtj:h6vY")
        self.assertTrue(verify(REQUEST, PASSWORD))
        self.assertFalse(verify(REQUEST, b"other"))

    def test_responses(self) -> None:
        request = decode(REQUEST)
        for data, address in (
            (RESPONSE_4, ("192.0.2.1", 32853)),
            (RESPONSE_6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
        ):
            message = decode(data)
            self.assertEqual(message.kind, Kind.SUCCESS)
            self.assertTrue(message.answers(request))
            value = message.need(Attribute.XOR_MAPPED_ADDRESS)
            self.assertEqual(stun.unpack_address(value, ID), address)
            self.assertEqual(stun.pack_address(address, ID), value)
            self.assertTrue(verify(data, PASSWORD))

    def test_long_term_request_is_made_byte_for_byte(self) -> None:
        key = stun.long_term_key("マトリックス", "example.org", "TheMatrIX")
        message = decode(LONG_TERM_REQUEST)
        self.assertTrue(verify(LONG_TERM_REQUEST, key))
        plain = Message(message.kind, message.method, message.transaction, message.attributes[:-1])
        self.assertEqual(encode(plain, key=key), LONG_TERM_REQUEST)

    def test_any_changed_bit_is_noticed(self) -> None:
        key = stun.long_term_key("マトリックス", "example.org", "TheMatrIX")
        for sample, secret in ((REQUEST, PASSWORD), (LONG_TERM_REQUEST, key)):
            covered = len(sample) - 8 if sample is REQUEST else len(sample)
            for position in range(covered * 8):
                bits = bytearray(sample)
                bits[position // 8] ^= 1 << position % 8
                changed = bytes(bits)
                try:
                    decode(changed)
                except ValueError:
                    continue
                self.assertFalse(verify(changed, secret), f"bit {position}")


class MessageTests(SynchronousTestCase):
    @given(messages, st.booleans(), st.booleans())
    def test_round_trip(self, message: Message, signed: bool, fingerprint: bool) -> None:
        data = encode(message, key=b"key" if signed else None, fingerprint=fingerprint)
        decoded = decode(data)
        added = [number for number, _ in decoded.attributes[len(message.attributes) :]]
        expected = [Attribute.MESSAGE_INTEGRITY] * signed + [Attribute.FINGERPRINT] * fingerprint
        self.assertEqual(added, expected)
        kept = decoded.attributes[: len(message.attributes)]
        self.assertEqual(
            (decoded.kind, decoded.method, decoded.transaction, kept),
            (message.kind, message.method, message.transaction, message.attributes),
        )
        self.assertEqual(verify(data, b"key"), signed)

    @given(
        st.binary(max_size=100)
        | st.binary(max_size=80).map(lambda rest: with_length(BINDING + rest))
    )
    def test_any_bytes_are_a_message_or_a_value_error(self, data: bytes) -> None:
        try:
            message = decode(data)
        except ValueError:
            return
        self.assertLessEqual(len(message.attributes), (len(data) - stun.HEADER_BYTES) // 4)

    def test_what_is_no_message(self) -> None:
        for data, cause in (
            (b"", "STUN message is shorter than its header"),
            (BINDING[:19], "STUN message is shorter than its header"),
            (b"\x40" + BINDING[1:], "not a STUN message"),
            (b"\x80" + BINDING[1:], "not a STUN message"),
            (BINDING.replace(b"\x21\x12", b"\x21\x13"), "not a STUN message"),
            (BINDING + b"\0\0\0\0", "STUN message has a wrong length"),
            (with_length(BINDING + b"\0\0"), "STUN message has a wrong length"),
            (REQUEST[:-4], "STUN message has a wrong length"),
            (
                with_length(BINDING + b"\0\x06\0\1"),
                "STUN attribute is longer than its message",
            ),
            (
                with_length(BINDING + b"\0\x06\xff\xff" + bytes(8)),
                "STUN attribute is longer than its message",
            ),
            (REQUEST[:-1] + b"\0", "STUN message has a wrong FINGERPRINT"),
            (with_length(REQUEST + b"\0\x06\0\0"), "STUN message has a wrong FINGERPRINT"),
            (
                with_length(BINDING + b"\x80\x28\0\0"),
                "STUN message has a wrong FINGERPRINT",
            ),
        ):
            with self.assertRaises(ValueError) as caught:
                decode(data)
            self.assertEqual(str(caught.exception), cause, data.hex())

    def test_a_fingerprint_is_the_last_attribute(self) -> None:
        for behind in (b"", b"\0\x06\0\0"):
            head = with_length(BINDING + bytes(8) + behind)[: len(BINDING)]
            value = (crc32(head) ^ 0x5354554E).to_bytes(4)
            data = head + b"\x80\x28\0\4" + value + behind
            if behind:
                self.assertRaises(ValueError, decode, data)
            else:
                self.assertEqual(decode(data).get(Attribute.FINGERPRINT), value)

    def test_what_message_integrity_does_not_cover_is_ignored(self) -> None:
        signed = encode(Message(Kind.REQUEST, Method.BINDING, ID), key=b"key")
        smuggled = with_length(signed + b"\0\x06\0\4mary")
        self.assertIsNone(decode(smuggled).get(Attribute.USERNAME))
        self.assertTrue(verify(smuggled, b"key"))

    def test_without_message_integrity_nothing_is_verified(self) -> None:
        self.assertFalse(verify(BINDING, b""))

    def test_the_first_of_several_counts(self) -> None:
        message = decode(with_length(BINDING + b"\0\x06\0\4mary\0\x06\0\4paul"))
        self.assertEqual(message.get(Attribute.USERNAME), b"mary")
        self.assertEqual(message.need(Attribute.USERNAME), b"mary")

    def test_a_missing_attribute(self) -> None:
        message = decode(BINDING)
        self.assertIsNone(message.get(Attribute.NONCE))
        with self.assertRaisesRegex(ValueError, "STUN message has no NONCE"):
            message.need(Attribute.NONCE)

    def test_what_answers_what(self) -> None:
        request = Message(Kind.REQUEST, Method.BINDING, ID)
        for kind, method, transaction, answers in (
            (Kind.SUCCESS, Method.BINDING, ID, True),
            (Kind.ERROR, Method.BINDING, ID, True),
            (Kind.REQUEST, Method.BINDING, ID, False),
            (Kind.INDICATION, Method.BINDING, ID, False),
            (Kind.SUCCESS, Method.ALLOCATE, ID, False),
            (Kind.SUCCESS, Method.BINDING, bytes(12), False),
        ):
            message = Message(kind, method, transaction)
            self.assertEqual(message.answers(request), answers, message)

    def test_what_does_not_fit(self) -> None:
        for message in (
            Message(Kind.REQUEST, Method.BINDING, b"short"),
            Message(Kind.REQUEST, 0x1000, ID),
            Message(Kind.REQUEST, Method.BINDING, ID, ((Attribute.DATA, bytes(0xFFFD)),)),
            Message(Kind.REQUEST, Method.BINDING, ID, ((Attribute.DATA, bytes(0x8000)),) * 2),
        ):
            with self.assertRaises(ValueError):
                encode(message)


class ValueTests(SynchronousTestCase):
    @given(addresses, st.binary(min_size=12, max_size=12))
    def test_addresses(self, address: stun.Address, transaction: bytes) -> None:
        packed = stun.pack_address(address, transaction)
        self.assertEqual(stun.unpack_address(packed, transaction), address)

    def test_wrong_addresses(self) -> None:
        for value in (b"", b"\0\1\0", b"\0\1\0\0", b"\0\1\0\0" + bytes(16), b"\0\3" + bytes(6)):
            with self.assertRaises(ValueError):
                stun.unpack_address(value, ID)
        for address in (("localhost", 1), ("127.0.0.1", -1), ("127.0.0.1", 65536)):
            with self.assertRaises(ValueError):
                stun.pack_address(address, ID)

    def test_errors(self) -> None:
        for value, error in (
            (b"\0\0\4\1Unauthorized", (401, "Unauthorized")),
            (b"\xff\xff\xfe\x63", (699, "")),
            (b"\0\0\3\0Try Alternate\0\0\0", (300, "Try Alternate")),
            (b"\0\0\4\1Unauthorized  ", (401, "Unauthorized")),
            (b"\0\0\4\1\0\0\0\0", (401, "")),
            (b"\0\0\4\1\xff", (401, "\ufffd")),
        ):
            self.assertEqual(stun.unpack_error(value), error)
        for value in (b"", b"\0\0\4", b"\0\0\2\0", b"\0\0\7\0", b"\0\0\4\x64"):
            with self.assertRaises(ValueError):
                stun.unpack_error(value)

    @given(st.sampled_from(stun.CHANNELS), st.binary(max_size=20), st.booleans())
    def test_channels(self, number: int, data: bytes, padded: bool) -> None:
        packed = stun.pack_channel(number, data, padded=padded)
        self.assertEqual(stun.unpack_channel(packed), (number, data))
        self.assertEqual(len(packed) % 4 == 0, padded or len(data) % 4 == 0)

    def test_wrong_channels(self) -> None:
        for frame in (b"", b"\x40\0\0", b"\x40\0\0\1", b"\x50\0\0\0", b"\x40\0\0\1abc", BINDING):
            with self.assertRaises(ValueError):
                stun.unpack_channel(frame)
        for number, data in ((0x3FFF, b""), (0x5000, b""), (0x4000, bytes(0x10000))):
            with self.assertRaises(ValueError):
                stun.pack_channel(number, data, padded=False)


class FramerTests(SynchronousTestCase):
    @given(
        st.lists(
            st.sampled_from(
                (
                    *SAMPLES,
                    BINDING,
                    *(stun.pack_channel(0x4000, b"x" * n, padded=True) for n in range(5)),
                )
            )
        ),
        st.lists(st.integers(0, 500)),
    )
    def test_however_the_stream_is_cut(self, frames: list[bytes], cuts: list[int]) -> None:
        stream = b"".join(frames)
        edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        framer = Framer()
        got = [frame for start, end in pairwise(edges) for frame in framer.feed(stream[start:end])]
        self.assertEqual(got, frames)

    def test_other_streams(self) -> None:
        for data in (b"\x16\x03\x01\x02\0", b"\0\1\0\0\x21\x13", b"\x50\0\0\0", b"\xff" * 9):
            framer = Framer()
            self.assertEqual(list(framer.feed(BINDING)), [BINDING])
            with self.assertRaises(ValueError):
                list(framer.feed(data))

    def test_a_length_that_is_no_message_s(self) -> None:
        [frame] = Framer().feed(BINDING[:3] + b"\1" + BINDING[4:] + b"x")
        self.assertRaises(ValueError, decode, frame)

    def test_what_comes_before_other_bytes_is_not_lost(self) -> None:
        frames = Framer().feed(BINDING + b"\xff" * 4)
        self.assertEqual(next(frames), BINDING)
        self.assertRaises(ValueError, next, frames)
