"""Inputs that grow: what costs more than in proportion to its length is found by doubling it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from tests.fuzz.tokens import KEY

Grow: TypeAlias = Callable[[int], bytes]

_HEADER: Final = b'{"alg":"EdDSA","kid":"%s"}\0' % KEY.kid.encode()
_ROOM: Final = b'{"id":["a","{b}%d"],"customer":"c","age":{"secs":1,"nanos":0},"peers":1}'
_POST: Final = b"POST / HTTP/1.1\r\nHost: x\r\n"
_ACME: Final = b'{"id":"acme%d","maxPeers":1,"maxRooms":null,"accessKeys":[]}'


def _report(count: int) -> bytes:
    rooms = b",".join(_ROOM % number for number in range(count))
    head = b'{"jsonrpc":"2.0","id":1,"method":"sfu.Report","params":{"public_endpoint":"a:1",'
    return head + b'"version":"1","load":0,"clients":0,"rooms":[' + rooms + b"]}}"


GROWING: Final[Mapping[str, tuple[tuple[str, Grow], ...]]] = MappingProxyType(
    {
        "access_key": (("text", lambda n: b"A" * n),),
        "access_token": (
            ("dots", lambda n: b"." * n),
            ("payload", lambda n: _HEADER + b'{"rid":[' + b'"r",' * n + b'"r"]}'),
            ("members", lambda n: _HEADER + b"{" + b'"a":1,' * n + b'"uid":5}'),
            ("depth", lambda n: _HEADER + b"[" * n),
        ),
        "client_call": (
            ("blanks", lambda n: b" " * n),
            ("batch", lambda n: b"[" + b"{}," * n + b"{}]"),
            (
                "bytes",
                lambda n: (
                    b'{"jsonrpc":"2.0","id":1,"method":"RoomUpdate","params":'
                    b'{"room_id":"room","user_data":[' + b"1," * n + b"1]}}"
                ),
            ),
        ),
        "config": (
            ("keys", lambda n: b"".join(b"a%d = 1\n" % i for i in range(n))),
            ("text", lambda n: b'a = "' + b"x" * n),
            ("list", lambda n: b"[listen]\npublic = [" + b'"tcp:1",' * n + b"]\n"),
        ),
        "customers": (
            ("customers", lambda n: b"[" + b",".join(_ACME % i for i in range(n)) + b"]"),
            ("same", lambda n: b"[" + b",".join([_ACME % 1] * n) + b"]"),
        ),
        "grid_config": (
            ("pairs", lambda n: b"".join(b"a%d = 1\n" % i for i in range(n))),
            ("headers", lambda n: b"".join(b"[a%d]\n" % i for i in range(n))),
            ("tables", lambda n: b"[[a]]\n" * n),
            ("array", lambda n: b"a = [" + b"1, # c\n" * n + b"]"),
            ("open", lambda n: b"a = [" + b"1, " * n),
            ("comments", lambda n: b"# c\n" * n + b"="),
            ("quotes", lambda n: b'a = """' + b'""\\"' * n),
            ("blanks", lambda n: b"\t " * n),
            ("key", lambda n: b"a" * n + b"."),
        ),
        "http": (
            ("headers", lambda n: _POST + b"A: b\r\n" * n + b"\r\n"),
            ("line", lambda n: b"x" * n),
            ("chunks", lambda n: _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * n),
            ("empty lines", lambda n: b"\r\n" * n),
            ("pipeline", lambda n: b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * (n // 5)),
        ),
        "jwk_set": (
            ("keys", lambda n: b'{"keys":[' + b"{}," * n + b"{}]}"),
            ("kid", lambda n: b'{"keys":[{"kid":"' + b"k" * n + b'"}]}'),
        ),
        "server_calls": (("rooms", _report),),
        "stun": (
            (
                "attributes",
                lambda n: b"\1\1" + (4 * n).to_bytes(2) + b"\x21\x12\xa4\x42" + bytes(12 + 4 * n),
            ),
            ("frames", lambda n: b"\x40\0\0\0" * n),
        ),
        "turnrest": (("uris", lambda n: b'{"turnUris":[' + b'"turn:a",' * n + b'"x"]}'),),
        "uri": (
            ("host", lambda n: b"turn:" + b"a." * n),
            ("port", lambda n: b"turn:a:" + b"1" * n),
        ),
    }
)
"""By target: names and makers of inputs of any size."""
