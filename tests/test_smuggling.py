"""Request smuggling: what a proxy and the gateway could read differently."""

import atexit
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import islice
from typing import Final
from urllib.parse import quote

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.site import Endpoint, Talk
from tests.process import GatewayProcess, customer, token
from tests.proxies import NGINX_DEFAULTS, Haproxy, Nginx, Proxy, Wire, program
from tests.smuggling import HIDDEN, VARIANTS, Seen, Then, Variant
from tests.smuggling.http2 import DOWNGRADES, is_over

KEY: Final = b'"config":'
_PATIENCE: Final = 30.0
_MORE_TIME: Final = 0.1
"""Seconds after which a proxy that says nothing is taken to wait for more bytes."""

_POLL: Final = 0.002
_CUT_TIME: Final = 1.0
_LOG_TIME: Final = 3.0
"""Seconds until a line that is missing from a proxy's log is taken for one that never comes."""

_REFUSALS: Final = frozenset((400, 413, 414, 417, 431, 501, 505))

_ENOUGH: Final = 5
"""How many variants that were smuggled a failing test tells of."""

LAST_PING: Final = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_MORE_ANSWERS: Final = "the gateway answered [45], the proxy passed on 3"
_BARE_PING: Final = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"

_LAST: Final = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_LAST_SEEN: Final = (b"GET", b"/last", b"")


def statuses(data: bytes) -> list[int]:
    """Return the statuses of answers, in order, without those that only announce another."""
    found = re.findall(rb"HTTP/1\.[01] ([2-9]\d\d) ", data)
    return [int(status) for status in found]


class DirectTests(SynchronousTestCase):
    """Without a proxy, whole and byte by byte."""

    def pieces(self, data: bytes) -> Iterable[list[bytes]]:
        yield [data]
        if len(data) < 5000:
            yield [data[at : at + 1] for at in range(len(data))]
        else:
            yield [data[at : at + 777] for at in range(0, len(data), 777)]

    def test_each_is_refused_or_read_as_the_standard_says(self) -> None:
        endpoint = Endpoint(("public", "internal"))
        wrong = [
            f"{variant.name}: {statuses(talk.reply)} {talk.seen}"[:300]
            for variant in VARIANTS
            for pieces in self.pieces(variant.data + _LAST)
            for talk in (endpoint.talk(pieces),)
            if not _is_right(variant, talk)
        ]
        self.assertEqual([], wrong)


def _is_right(variant: Variant, talk: Talk) -> bool:
    """Tell whether a variant, and the last request behind it, were read as they are to be."""
    found = statuses(talk.reply)
    refused = found[-1:] and found[-1] in _REFUSALS and len(found) == len(talk.seen) + 1
    answered = len(found) == len(talk.seen)
    match variant.then:
        case Then.REFUSAL:
            return bool(refused) and _same(variant.requests, talk.seen)
        case Then.END | Then.BODY:
            return answered and _same(variant.requests, talk.seen)
        case Then.MORE | Then.EITHER:
            if answered and _same((*variant.requests, _LAST_SEEN), talk.seen):
                return True
            return variant.then is Then.EITHER and bool(refused) and not talk.seen


def _same(wanted: Sequence[Seen], seen: Sequence[Seen]) -> bool:
    return len(wanted) == len(seen) and all(
        (method, body) == (found[0], found[2]) and target in (b"", found[1])
        for (method, target, body), found in zip(wanted, seen, strict=True)
    )


_GATEWAY: Final = f"[gateway.internal]\nallow = ['127.0.0.0/8']\n{customer()}"
"""Whoever reaches ``/internal`` from this host gets a private key: the proxies alone forbid it."""

_NGINX: Final = f"""
upstream gateway {{
    server 127.0.0.1:{{wire}};
    keepalive 4;
}}
server {{
    listen 127.0.0.1:{{front}};
    listen 127.0.0.1:{{front_h2}} http2;
    {NGINX_DEFAULTS}
    location / {{ proxy_pass http://gateway; }}
    location ~* internal {{ return 403; }}
    MORE
}}
"""

_HAPROXY: Final = """
frontend front
    bind 127.0.0.1:{front}
    bind 127.0.0.1:{front_h2} proto h2
    http-request deny if { path,url_dec -m sub -i internal }
    default_backend gateway
    MORE
backend gateway
    http-reuse always
    server gateway 127.0.0.1:{wire}
"""

_LENIENT: Final = (
    "ignore_invalid_headers off; underscores_in_headers on; merge_slashes off; "
    "proxy_request_buffering off;"
)

_HOLE: Final = "location /hole/ { proxy_pass http://gateway$uri; }"
"""A well-known mistake: nginx writes line ends into the request that a path has as %0d%0a."""

_FRONTS: Final[dict[str, tuple[type[Proxy], str]]] = {
    "nginx": (Nginx, _NGINX.replace("MORE", "")),
    "nginx, lenient": (Nginx, _NGINX.replace("MORE", _LENIENT)),
    "nginx, open": (
        Nginx,
        _NGINX.replace("MORE", _HOLE).replace("location ~* internal", "location = /internal"),
    ),
    "haproxy": (Haproxy, _HAPROXY.replace("MORE", "")),
    "haproxy, lenient": (
        Haproxy,
        _HAPROXY.replace("MORE", "option accept-invalid-http-request"),
    ),
}


@cache
def gateway() -> GatewayProcess:
    """Return the gateway that all tests here share."""
    started = GatewayProcess(_GATEWAY)
    atexit.register(started.stop)
    return started.start()


class Path:
    """A proxy, the wire behind it, and the gateway behind that."""

    def __init__(self, name: str) -> None:
        kind, text = _FRONTS[name]
        program(kind.name)
        self.wire = Wire(("127.0.0.1", gateway().port)).start()
        atexit.register(self.wire.close)
        self.proxy = kind(text.replace("{wire}", str(self.wire.port)), ("front", "front_h2"))
        atexit.register(self.proxy.stop)
        self.proxy.start()
        self._count = 0
        self._token = token("room").encode()

    def send(self, data: bytes) -> bytes:
        """Send bytes over a connection of their own and return what comes back until it ends."""
        return self._talk("front", data, lambda _: False)

    def send_http2(self, data: bytes) -> bytes:
        """The same for HTTP/2, until the answer has ended."""
        return self._talk("front_h2", data, is_over)

    def _talk(self, port: str, data: bytes, is_over: Callable[[bytes], bool]) -> bytes:
        reply = b""
        with (
            socket.create_connection(("127.0.0.1", self.proxy.ports[port]), _PATIENCE) as wire,
            contextlib.suppress(OSError),
        ):
            wire.sendall(data)
            wire.settimeout(_MORE_TIME)
            while not is_over(reply) and (piece := self._next(wire)):
                reply += piece
        return reply

    def _next(self, wire: socket.socket) -> bytes:
        """Read; a proxy that waits for more is told that nothing comes."""
        try:
            return wire.recv(65536)
        except TimeoutError:
            wire.shutdown(socket.SHUT_WR)
            wire.settimeout(_PATIENCE)
            return wire.recv(65536)

    def faults(self, send: Callable[[], bytes]) -> list[str]:
        """Attack, ask as others would, and return what shows that a request was smuggled."""
        self.wire.forget()
        before = self._counts()
        found = []
        reply = send()
        # What the proxy has refused itself has harmed nobody behind it.
        if self.wire.asked and (fault := self._victims()):
            found.append(fault)
        if KEY in reply or KEY in self.wire.answered:
            found.append("a private key was handed out")
        if fault := self._disagreement(before):
            found.append(fault)
        if found:
            found.append(f"on the wire: {bytes(self.wire.asked)[:1500]!r}")
            found.append(f"answered: {bytes(self.wire.answered)[:1500]!r}")
        return found

    def _disagreement(self, before: tuple[int, ...]) -> str:
        """Compare what the gateway has answered since with what the proxy's log says of it."""
        begin = time.monotonic()
        while True:
            replies, answered, begun = (
                now - then for now, then in zip(self._counts(), before, strict=True)
            )
            waited = time.monotonic() - begin
            # An exchange that was cut short may have been answered all the same.
            if answered == replies or (answered < replies <= begun and waited > _CUT_TIME):
                return ""
            if waited > _LOG_TIME:
                return f"the gateway answered {replies}, the proxy passed on {answered} to {begun}"
            time.sleep(_POLL)

    def _counts(self) -> tuple[int, ...]:
        return (self.wire.replies, *self.proxy.passed_on())

    def _victims(self) -> str:
        """Ask two things whose answers are known and differ."""
        self._count += 1
        call = {"jsonrpc": "2.0", "id": f"victim {self._count}", "method": "Connect"}
        body = json.dumps(call).encode()
        reply = self.send(
            b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (self._token, len(body), body)
        )
        pong, _, connected = reply.partition(b"\r\n\r\npong")
        try:
            answer = json.loads(connected.partition(b"\r\n\r\n")[2])
            right = statuses(pong) == [200] and statuses(connected) == [200]
            right &= answer["id"] == call["id"] and answer["error"]["data"]["reason"] == "no_server"
        except (ValueError, KeyError):
            right = False
        return "" if right else f"two others were answered {reply!r}"


class ThroughProxyTests(SynchronousTestCase):
    """Through nginx and haproxy, which hand on the requests of all over the same connections."""

    def smuggled(self, name: str) -> list[str]:
        """Send all variants and return what shows that one got through; stop after a few."""
        path = Path(name)
        attacks: list[tuple[str, Callable[[], bytes]]] = [
            *((one.name, partial(path.send, one.data + LAST_PING)) for one in VARIANTS),
            *((one.name, partial(path.send_http2, one.data)) for one in DOWNGRADES),
        ]
        # Now and then the answer to what another attack has cut short comes only now.
        found = (
            f"{about}: {faults}"
            for about, attack in attacks
            if path.faults(attack) and (faults := path.faults(attack))
        )
        smuggled = list(islice(found, _ENOUGH))
        if not smuggled:
            self.assertLess(path.wire.made, len(attacks) / 4, "connections are used again")
        return smuggled

    def test_nginx(self) -> None:
        self.assertEqual([], self.smuggled("nginx"))

    @pytest.mark.long
    def test_nginx_that_lets_more_through(self) -> None:
        """Invalid header lines too, and bodies as they come in."""
        self.assertEqual([], self.smuggled("nginx, lenient"))

    def test_haproxy(self) -> None:
        self.assertEqual([], self.smuggled("haproxy"))

    @pytest.mark.long
    def test_haproxy_that_lets_more_through(self) -> None:
        self.assertEqual([], self.smuggled("haproxy, lenient"))

    def test_a_smuggled_request_is_noticed(self) -> None:
        """With a proxy that has a hole: the key is seen, and a request that the proxy knows not."""
        path = Path("nginx, open")
        self.assertEqual([], path.faults(partial(path.send, LAST_PING)))
        for hidden, signs in (
            (HIDDEN, ("a private key", _MORE_ANSWERS)),
            (_BARE_PING, (_MORE_ANSWERS,)),
        ):
            inside = quote(b"x HTTP/1.1\r\nHost: x\r\n\r\n" + hidden + b"GET /x", safe="/")
            attack = f"GET /hole/{inside} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            faults = " ".join(path.faults(partial(path.send, attack)))
            for sign in signs:
                self.assertRegex(faults, sign)
