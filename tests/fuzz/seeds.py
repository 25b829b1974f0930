"""The corpus that people wrote: recorded exchanges, and what hostile peers are known to send.

``python -m tests.fuzz.seeds`` writes it. What the fuzzer has added stays as it is.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from odingw.tokens import AccessKey
from odingw.turn.stun import Attribute, Kind, Message, Method, encode, pack_address
from tests.customer_documents import OTHER_X, SECRET, X, access_key, document
from tests.fuzz.network import TRANSACTION
from tests.fuzz.rpc import METHODS, SERVER
from tests.fuzz.targets import CORPUS
from tests.fuzz.tokens import KEY, NOW, compact
from tests.test_turn_stun import SAMPLES

DATA: Final = Path(__file__).parent.parent / "data"

Seeds = Iterator[bytes]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _call(method: object, call_id: object = 1, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": call_id}


def _recorded(name: str) -> Iterator[dict[str, Any]]:
    """What was sent in the recordings of one file."""
    for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines():
        for step in json.loads(line)["steps"]:
            yield step["send"]


def _distinct(texts: Iterator[str], most: int) -> Iterator[str]:
    """Of texts that look alike, one."""
    found: dict[str, str] = {}
    for text in texts:
        shape = "".join(sorted(set(text)))
        found.setdefault(shape, text)
    yield from sorted(found.values(), key=len)[:most]


def client_calls() -> Seeds:
    """Bodies for the client API."""
    bodies = (send["body"] for send in _recorded("client_api") if send.get("body"))
    for text in _distinct(bodies, 40):
        if len(text) < 1000:
            yield text.encode()
    for method in METHODS:
        data = [1, 2.0, 255]
        yield _json(_call(method, room_id="room", user_id="u", message=data, user_data=data))
    yield _json(_call("RoomClose", room_id="room", ban_time=1e300))
    yield _json([_call("Connect"), _call("Nope", None), {"jsonrpc": "2.0", "method": "Connect"}])
    yield _json([_call("Connect", number) for number in range(9)])
    for text in ("[]", "{}", "[[]]", "[1,{}]", "null", '"x"', "[", "1e400", "\ufeff{}", "NaN"):
        yield text.encode()
    for call_id in ("1.0", "1.5", "-0.0", "1e300", "9" * 400, "true", "{}", '"\\ud800"', '"ü"'):
        yield b'{"jsonrpc":"2.0","method":"Connect","id":%s}' % call_id.encode()
    yield b'{"jsonrpc":"2.0","method":"Connect","id":1,"id":2,"method":"RoomClose"}'
    yield b'{"jsonrpc":"2.0","method":"Connect","params":{"x":"\xff\xfe"},"id":1}'
    yield b'{"jsonrpc":"2.0","method":"Connect","id":1}'.decode().encode("utf-16")
    yield b"[" * 1500
    yield b'{"a":' * 800


def _report(*rooms: tuple[str, float], server: str = SERVER, **more: object) -> dict[str, object]:
    listed = [
        {
            "id": ["acme", name],
            "customer": "acme",
            "age": {"secs": 1, "nanos": 0},
            "peers": peers,
        }
        for name, peers in rooms
    ]
    params = {"public_endpoint": server, "version": "1.5.0", "load": 0.1, "clients": 1}
    return _call("sfu.Report", **{**params, "rooms": listed, **more})


def server_calls() -> Seeds:
    """Bodies for the server API, some in a row."""
    for name in ("grid_config", "basic_auth"):
        bodies = (send["body"] for send in _recorded(name) if send.get("body"))
        yield from (text.encode() for text in _distinct(bodies, 10) if len(text) < 2000)
    other = "sfu2.test:4433"
    first, second = _json(_report(("{b}1", 2))), _json(_report(("{b}2", 3), server=other))
    drain = _json(_call("Drain", server=SERVER))
    yield b"\0".join([first, second, first, drain, _json(_report()), first])
    yield _json(_report(("room", 1e300), ("room", -1), ("room", 0.5)))
    yield _json(_report(*((f"r{number}", 1) for number in range(41))))
    yield _json(_report(load=-1e308, clients=1e308, public_endpoint="a\nb"))
    yield _json([_report(("a", 1)), _call("Info"), _call("Undrain", server=other)])
    yield _json(_call("GetConfig", server="grid", version="1", config="[quic]\nx=1\n"))
    yield _json(_call("SubmitReport", server="saga", version="1", load=0, clients=0, rooms=[]))


def _signed(**claims: object) -> bytes:
    header = {"alg": "EdDSA", "kid": KEY.kid}
    told = {"rid": "room", "uid": "user", "sub": "connect", "exp": int(NOW) + 60, **claims}
    return _json(header) + b"\0" + _json({k: v for k, v in told.items() if v is not None})


def access_tokens() -> Seeds:
    """Tokens of the client API: signed here, or whole."""
    yield _signed()
    yield _signed(sub=["Connect", "RoomClose"], rid=["{a}1", "{a}2"], aud=["gateway"], tgs="t")
    for claims in ({"exp": 1e300}, {"exp": 0}, {"exp": None}, {"exp": "1"}, {"exp": True}):
        yield _signed(**claims)
    yield _signed(nbf=NOW + 61, aud="sfu", internal={"server": 5})
    yield _signed(rid=[], uid="", sub=[])
    yield _signed(rid="ü\ud7ff", cid="c", nsp="n", adr="a", ups="u", internal={"server": SERVER})
    for header in (
        {"alg": "none"},
        {"alg": "EdDSA", "kid": "\u0000"},
        {"alg": "eddsa", "kid": KEY.kid},
        {"alg": "EdDSA", "kid": KEY.kid, "crit": ["exp"], "exp": 1},
        {"alg": "EdDSA", "kid": KEY.kid, "b64": False},
        {"alg": "EdDSA", "kid": KEY.kid, "crv": "Ed448"},
        {"alg": "EdDSA", "kid": KEY.kid, "jwk": KEY.public_jwk().x},
    ):
        yield _json(header) + b"\0" + _json({"rid": "r", "uid": "u", "exp": int(NOW)})
    header, _, payload = _signed().partition(b"\0")
    good = compact(header, payload, KEY.sign).encode()
    yield good
    yield good + b"="
    yield good[:-1] + b"B"
    yield good.replace(b".", b"..")
    yield good.rpartition(b".")[0] + b"."
    yield b".." + good


def turn_tokens() -> Seeds:
    """Tokens for TURN credentials."""
    more: dict[str, object]
    yield from access_tokens()
    claims = {"iss": "me", "aud": ["turn"], "scope": "a turn", "exp": NOW + 0.5, "sub": "alice"}
    for header in (
        {"alg": "ES256", "kid": "ec"},
        {"alg": "ES256"},
        {"alg": "EdDSA"},
        {"alg": "HS256", "kid": "ec"},
        {"alg": "none"},
        {"alg": "RS256", "kid": "ec"},
        {"alg": "ES256", "kid": KEY.kid},
    ):
        yield _json(header) + b"\0" + _json(claims)
    yield _signed(sub=["turn"], aud="gateway")
    yield _json({"alg": "ES256"}) + b"\0" + b"[" * 1100
    for more in ({"scp": ["turn"]}, {"scopes": [1, "turn"]}, {"aud": {}}, {"nbf": 2**53}):
        yield _json({"alg": "ES256"}) + b"\0" + _json({**claims, "scope": "", **more})


def access_keys() -> Seeds:
    """Texts of keys."""
    text = AccessKey.generate(lambda count: bytes(range(count))).text
    yield from (each.encode() for each in (text, text[:-1] + "=", text + "\n", text[:40], KEY.kid))
    yield from (b"AQ7aVmK+pI1l", b"====", b"A", b"\xff", b"")
    jwk = {"kid": "k", "kty": "OKP", "crv": "Ed25519", "x": X}
    yield _json(jwk)
    for more in ({"d": SECRET}, {"x": X + "="}, {"x": X[:-1] + "5"}, {"kid": ""}, {"kty": "EC"}):
        yield _json({**jwk, **more})


def jwk_sets() -> Seeds:
    """JWK sets."""
    more: dict[str, object]
    ed = {"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "ed"}
    ec = {
        "kty": "EC",
        "crv": "P-256",
        "kid": "ec",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    rsa = {"kty": "RSA", "n": "x" * 341 + "w", "e": "AQAB", "use": "sig", "key_ops": ["verify"]}
    yield _json({"keys": [ed, ec, rsa]})
    for more in (
        {"d": SECRET},
        {"use": "enc"},
        {"key_ops": []},
        {"alg": "ES256"},
        {"alg": "none"},
        {"kid": "k\n" + "x" * 200},
        {"x": "A" * 43},
        {"d": None},
    ):
        yield _json({"keys": [{**key, **more} for key in (ed, ec, rsa)]})
    for name in ("p", "q", "dp", "dq", "qi", "oth", "k"):
        yield _json({"keys": [{**rsa, name: "x" * 170 + "w"}]})
    yield _json({"keys": [{"kty": "oct", "k": SECRET}]})
    yield _json(
        {"keys": [{**rsa, "e": "x" * 400}, {**rsa, "n": "x" * 3000}, {**ec, "crv": "P-521"}]}
    )
    yield b'{"keys":[' + b",".join([b"{}"] * 150) + b"]}"
    for text in ("[]", '{"keys":{}}', '{"keys":null}', "{", '{"keys":[1,null,"x",[]]}'):
        yield text.encode()


def grid_configs() -> Seeds:
    """Configurations of ODIN servers."""
    found: list[str] = []
    for send in _recorded("grid_config"):
        try:
            config = json.loads(send["body"])["params"]["config"]
        except (KeyError, TypeError, ValueError):
            continue
        if isinstance(config, str) and len(config) < 1500:
            found.append(config)
    yield from (text.encode() for text in _distinct(iter(found), 25))
    yield b'[[metrics.allowed]]\nx = 1\n[[authorization.keys]]\nkid = "k"\n'
    yield b'metrics = { allowed = [ "a", # c\n ] }\r\nquic.migration = false\r\n'
    yield b'"a\\u0062".c = 1\n\'x.y\' = """\n[quic]\n"""\n[ quic . "sub" ]\n'
    yield b"a" + b".a" * 70 + b" = 1\n"
    yield b"a = " + b"[" * 70 + b"]" * 70
    yield b"x = " + b"9" * 5000
    yield b"d = 1979-05-27 07:32:00Z\nt = 07:32:00\nf = nan\ni = 0xff\n"
    yield b"[quic]\n# last, without an end of line"


def customer_lists() -> Seeds:
    """Lists of customers."""
    more: dict[str, object]
    acme = document("acme", access_key(), access_key("k2", OTHER_X, namespace="n"))
    yield _json([acme])
    yield _json({"customers": [acme, document("beta", access_key("k2"))]})
    yield _json([acme, document("acme")])
    yield _json([document("acme", access_key(), access_key("k1", OTHER_X))])
    for more in (
        {"maxPeers": -1},
        {"maxPeers": True},
        {"maxPeers": 1e3},
        {"maxRooms": "5"},
        {"id": ""},
        {"id": 5},
        {"accessKeys": {}},
        {"accessKeys": [1, {"publicKey": []}, {"publicKey": {"kid": "k", "d": SECRET}}]},
    ):
        yield _json([{**acme, **more}, document("last")])
    yield from (b"[]", b"{}", b'{"customers":[]}', b"[1]", b"<html>", b"[" * 1100, b"\xff")


def stun_messages() -> Seeds:
    """STUN messages, and frames of streams."""
    yield from SAMPLES
    yield b"".join(SAMPLES[:2]) + b"\x40\x00\x00\x03abc\x00"
    yield b"\x40\x01\x00\x05hello\x00\x00\x00"
    yield b"\x00\x00\x04\x01Unauthorized"
    yield b"\x00\x02" + bytes(18)


def stun_answers() -> Seeds:
    """Answers, right and wrong, to our question."""
    for kind in Kind:
        yield encode(Message(kind, Method.BINDING, TRANSACTION))
    mapped = (Attribute.XOR_MAPPED_ADDRESS, pack_address(("192.0.2.7", 4711), TRANSACTION))
    error = (Attribute.ERROR_CODE, b"\0\0\x04\x01Unauthorized")
    answer = Message(Kind.SUCCESS, Method.BINDING, TRANSACTION, (mapped, error))
    yield encode(answer, fingerprint=True)
    yield encode(answer, key=b"key", fingerprint=True)
    yield encode(answer)[:-4]
    yield encode(Message(Kind.SUCCESS, Method.ALLOCATE, TRANSACTION))
    yield encode(Message(Kind.SUCCESS, Method.BINDING, b"another one."))
    indication = encode(Message(Kind.INDICATION, Method.BINDING, TRANSACTION))
    yield indication + encode(answer, fingerprint=True)


def configs() -> Seeds:
    """Configuration files."""
    yield (DATA / "recorded_customers.toml").read_bytes()[:3000]
    example = (DATA.parent.parent / "etc" / "odingw.toml").read_bytes()
    yield example.replace(b"\n# ", b"\n")
    for name, table in tomllib.loads(example.decode()).items():
        yield f"[{name}]\n".encode() + b"".join(
            f"{key} = {json.dumps(value)}\n".encode()
            for key, value in table.items()
            if not isinstance(value, dict)
        )
    for text in (
        '[listen]\npublic = ["tcp:7000", "unix:/x", "ssl:1:privateKey=k", "haproxy:tcp:1"]\n',
        '[state]\nurl = "redis://u:p@h:1/2"\n[gateway]\nmaster_key = "!"\n',
        '[gateway.internal]\nusers = { a = "b", c = { password = 5 } }\nallow = ["::/129"]\n',
        '[turn]\nsecret_keys = ["hunter2hunter2hunter2"]\nturn_uris = ["turn:x"]\nttl = 1e9\n',
        '[gateway.customer_source]\nfunction = "a:b:c"\ninterval = -1\n',
        "a = " + "[" * 70 + "]" * 70,
        "x = " + "9" * 5000,
        '\ufeff[gateway]\ncompatibility = "0.18"\n',
        "[gateway]\nlee\u2028way = 1\n",
    ):
        yield text.encode()
    yield b"\xff\xfe"


def turnrest_files() -> Seeds:
    """TurnRest files."""
    good: Mapping[str, object] = {
        "secretKeys": ["hunter2hunter2hunter2"],
        "ttl": 60,
        "turnUris": ["turn:a.test:3478?transport=udp", "b.test"],
        "stunUris": ["stun:a.test"],
        "jwkUrls": ["https://a.test/jwks"],
        "userClaim": "sub",
    }
    yield _json(good)
    for more in (
        {"forceUser": "u", "ignoreJwt": True},
        {"turnUris": ["turn:[::1", "stun:x", "turn:u:p@h"]},
        {"jwkUrls": ["http://a.test", "https://u:hunter2hunter2hunter2@h", "https://[", "x"]},
        {"publicKeys": ["AAAA", "MCowBQYDK2VwAyEA" + "A" * 43 + "="]},
        {"ttl": 0, "allowedOrigin": "x"},
        {"nope\n": 1, "secretKey": "hunter2hunter2hunter2"},
        {"secretKeys": "hunter2hunter2hunter2"},
    ):
        yield _json({**good, **more})
    yield from (b"{}", b"[]", b"{", b"\xff", b'{"ttl":' + b"[" * 1100)


def uris() -> Seeds:
    """TURN and STUN URIs."""
    for text in (
        "turn:a.test:3478?transport=udp",
        "TURNS:[2001:db8::1]:443?transport=TCP",
        "stun:192.0.2.1",
        "a.test",
        "turn://a.test",
        "turn:a.test:0",
        "turn:u@a",
        "[::1%25eth0]:1",
        "turn:1.2.3",
        "turn:ü.test",
        "turn:" + "a" * 64,
        "::1",
        "http:x",
    ):
        yield text.encode()


def _request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: x", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def http_exchanges() -> Seeds:
    """What goes over connections to the public endpoint."""
    bearer, basic = "Authorization: Bearer @T", "Authorization: Basic @B"
    connect = _json(_call("Connect"))
    one = _request("POST", "/", bearer, body=connect)
    yield one
    yield one + _request("GET", "/turn?ttl=60", bearer) + _request("HEAD", "/ping")
    chunked = "Transfer-Encoding: chunked"
    yield _request("POST", "/", bearer, chunked) + _chunked(connect[:9], connect[9:]) + one
    report = _json([_report(("a", 1)), _call("Info"), _call("Drain", server=SERVER)])
    yield _request("POST", "/internal", basic, body=report)
    yield _request("POST", "/%69nternal", basic, body=b" " * 3000)
    yield _request("POST", "/internal", basic, chunked) + _chunked(b" " * 3000, report)
    yield _request("POST", "/", bearer, chunked) + _chunked(b" " * 1990, b" " * 20, connect)
    update = _json(_call("RoomUpdate", room_id="room", user_data=[1]))
    tell = _request("POST", "/internal", basic, body=_json(_report(("room", 1))))
    yield _request("POST", "/", bearer, body=update) + tell + tell + b"GARBAGE\r\n\r\n"
    for line in (
        "OPTIONS * HTTP/1.1",
        "POST http://x/ HTTP/1.1",
        "GET / HTTP/1.0",
        "BREW / HTTP/1.1",
    ):
        yield f"{line}\r\nHost: x\r\nConnection: TE, close\r\n\r\n".encode()
    for target in ("/clients/", "/%ff", "//", "/turn?service=turn&key=@T&username=u%00", "/a b"):
        yield _request("GET", target)
    yield from _smuggled(connect)


def _smuggled(body: bytes) -> Seeds:
    """Messages of which two parsers may think differently (RFC 9112, sections 2.2, 5 and 6)."""
    chunked, length = "Transfer-Encoding: chunked", f"Content-Length: {len(body)}"
    for lines in (
        (chunked, length),
        (length, chunked),
        ("Content-Length: 3", length),
        (length, length),
        (f"{length}, {len(body)}",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: -1",),
        ("Content-Length: " + "9" * 400,),
        ("Content-Length : 5",),
        ("Transfer-Encoding: identity", length),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding:\tchunked",),
        ("Transfer-Encoding: xchunked",),
        ("X: a", " Transfer-Encoding: chunked", length),
        ("Transfer-Encoding:", " chunked"),
        (" X: folded at first", length),
        ("X: a\rTransfer-Encoding: chunked", length),
        ("X: a\nTransfer-Encoding: chunked", length),
        ("X: a\0b", length),
        ("Expect: 100-continue", length),
        ("Expect: 100-continue", "Content-Length: 99999"),
        ("X: " + "x" * 1600,),
        ("Host: y", length),
        ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", length),
    ):
        yield _request("POST", "/", *lines) + body + _request("GET", "/ping")
    for sizes in (b"5;a=b\r\n", b"5 \r\n", b"0x5\r\n", b"5\n", b"+5\r\n", b"00000000000000005\r\n"):
        tail = b"hello\r\n0\r\n\r\n"
        yield _request("POST", "/", chunked) + sizes + tail + _request("GET", "/ping")
    yield _request("POST", "/", chunked) + b"0\r\nContent-Length: 5\r\nX: y\r\n\r\n" + body
    yield _request("POST", "/", chunked) + b"5\r\nhelloX\r\n0\r\n\r\n"
    yield b"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello"
    yield b"\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET /ping HTTP/1.1 \r\nHost: x\r\n\r\n"
    yield b"GET  /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def admin_exchanges() -> Seeds:
    """What goes over connections to the admin endpoint."""
    accepts = ("text/html", "application/openmetrics-text; version=1.0.0; q=x", ",;=", "\xe9")
    paths = ("/metrics", "/monitor", "/monitor/state", "/readyz", "/healthz", "/nope", "/%2e/")
    for number, path in enumerate(paths):
        yield _request("GET", path, f"Accept: {accepts[number % 4]}", "Origin: http://x").replace(
            b"Host: x", b"Host: localhost:7001"
        )
    for host in ("", "a..b", "[::1", "127.0.0.1:x", "x" * 64, "localhost"):
        yield f"GET /monitor HTTP/1.1\r\nHost: {host}\r\nOrigin: null\r\n\r\n".encode()
    for query in ("q=a%00&after=x", "pool=&room=%ff", "limit=-1&offset=1e9", "a=" * 200):
        for path in ("/monitor/rooms", "/monitor/state"):
            yield f"GET {path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    yield _request("POST", "/monitor/drain", "Origin: http://localhost", body=b"server=a&pool=")


SEEDS: Final = {
    "access_key": access_keys,
    "access_token": access_tokens,
    "admin": admin_exchanges,
    "client_call": client_calls,
    "config": configs,
    "customers": customer_lists,
    "grid_config": grid_configs,
    "http": http_exchanges,
    "jwk_set": jwk_sets,
    "server_calls": server_calls,
    "stun": stun_messages,
    "stun_answer": stun_answers,
    "turn_token": turn_tokens,
    "turnrest": turnrest_files,
    "uri": uris,
}


def write() -> None:
    """Write the files, in place of those that were written before."""
    for name, seeds in SEEDS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for number, seed in enumerate(seeds()):
            (folder / f"seed-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    write()
