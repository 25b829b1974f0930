"""The corpus that people wrote: recorded exchanges, and what hostile peers are known to send.

``python -m tests.fuzz.seeds`` writes it. What the fuzzer has added stays as it is.
"""

import json
import tomllib
from typing import Final

from odingw.tokens import AccessKey
from odingw.turn.stun import Attribute, Kind, Message, Method, encode, pack_address
from tests.customer_documents import OTHER_X, SECRET, X, access_key, document
from tests.fuzz.network import TRANSACTION
from tests.fuzz.rpc import METHODS, SERVER
from tests.fuzz.seed_parts import (
    DATA,
    Seeds,
    as_json,
    call,
    distinct,
    members,
    recorded,
    report_call,
)
from tests.fuzz.seeds_http import admin_exchanges, http_exchanges
from tests.fuzz.targets import CORPUS
from tests.fuzz.tokens import KEY, NOW, compact
from tests.test_turn_stun import SAMPLES


def client_calls() -> Seeds:
    """Bodies for the client API."""
    bodies = (send["body"] for send in recorded("client_api") if send.get("body"))
    for text in distinct(bodies, 40):
        if len(text) < 1000:
            yield text.encode()
    for method in METHODS:
        data = [1, 2.0, 255]
        yield as_json(call(method, room_id="room", user_id="u", message=data, user_data=data))
    yield as_json(call("RoomClose", room_id="room", ban_time=1e300))
    yield as_json([call("Connect"), call("Nope", None), {"jsonrpc": "2.0", "method": "Connect"}])
    yield as_json([call("Connect", number) for number in range(9)])
    for text in ("[]", "{}", "[[]]", "[1,{}]", "null", '"x"', "[", "1e400", "\ufeff{}", "NaN"):
        yield text.encode()
    for call_id in ("1.0", "1.5", "-0.0", "1e300", "9" * 400, "true", "{}", '"\\ud800"', '"ü"'):
        yield b'{"jsonrpc":"2.0","method":"Connect","id":%s}' % call_id.encode()
    yield b'{"jsonrpc":"2.0","method":"Connect","id":1,"id":2,"method":"RoomClose"}'
    yield b'{"jsonrpc":"2.0","method":"Connect","params":{"x":"\xff\xfe"},"id":1}'
    yield b'{"jsonrpc":"2.0","method":"Connect","id":1}'.decode().encode("utf-16")
    yield b"[" * 1500
    yield b'{"a":' * 800


def server_calls() -> Seeds:
    """Bodies for the server API, some in a row."""
    for name in ("grid_config", "basic_auth"):
        bodies = (send["body"] for send in recorded(name) if send.get("body"))
        yield from (text.encode() for text in distinct(bodies, 10) if len(text) < 2000)
    other = "sfu2.test:4433"
    first, second = (
        as_json(report_call(("{b}1", 2))),
        as_json(report_call(("{b}2", 3), server=other)),
    )
    drain = as_json(call("Drain", server=SERVER))
    yield b"\0".join([first, second, first, drain, as_json(report_call()), first])
    yield as_json(report_call(("room", 1e300), ("room", -1), ("room", 0.5)))
    yield as_json(report_call(*((f"r{number}", 1) for number in range(41))))
    yield as_json(report_call(load=-1e308, clients=1e308, public_endpoint="a\nb"))
    yield as_json([report_call(("a", 1)), call("Info"), call("Undrain", server=other)])
    yield as_json(call("GetConfig", server="grid", version="1", config="[quic]\nx=1\n"))
    yield as_json(call("SubmitReport", server="saga", version="1", load=0, clients=0, rooms=[]))


def _signed(**claims: object) -> bytes:
    header = {"alg": "EdDSA", "kid": KEY.kid}
    told = {"rid": "room", "uid": "user", "sub": "connect", "exp": int(NOW) + 60, **claims}
    return as_json(header) + b"\0" + as_json({k: v for k, v in told.items() if v is not None})


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
        yield as_json(header) + b"\0" + as_json({"rid": "r", "uid": "u", "exp": int(NOW)})
    first, _, second = _signed().partition(b"\0")
    good = compact(first, second, KEY.sign).encode()
    yield good
    yield good + b"="
    yield good[:-1] + b"B"
    yield good.replace(b".", b"..")
    yield good.rpartition(b".")[0] + b"."
    yield b".." + good


def turn_tokens() -> Seeds:
    """Tokens for TURN credentials."""
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
        yield as_json(header) + b"\0" + as_json(claims)
    yield _signed(sub=["turn"], aud="gateway")
    yield as_json({"alg": "ES256"}) + b"\0" + b"[" * 1100
    for more in members({"scp": ["turn"]}, {"scopes": [1, "turn"]}, {"aud": {}}, {"nbf": 2**53}):
        yield as_json({"alg": "ES256"}) + b"\0" + as_json({**claims, "scope": "", **more})


def access_keys() -> Seeds:
    """Texts of keys."""
    text = AccessKey.generate(lambda count: bytes(range(count))).text
    yield from (each.encode() for each in (text, text[:-1] + "=", text + "\n", text[:40], KEY.kid))
    yield from (b"AQ7aVmK+pI1l", b"====", b"A", b"\xff", b"")
    jwk = {"kid": "k", "kty": "OKP", "crv": "Ed25519", "x": X}
    yield as_json(jwk)
    for more in members(
        {"d": SECRET}, {"x": X + "="}, {"x": X[:-1] + "5"}, {"kid": ""}, {"kty": "EC"}
    ):
        yield as_json({**jwk, **more})


def jwk_sets() -> Seeds:
    """JWK sets."""
    ed = {"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "ed"}
    ec = {
        "kty": "EC",
        "crv": "P-256",
        "kid": "ec",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    rsa = {"kty": "RSA", "n": "x" * 341 + "w", "e": "AQAB", "use": "sig", "key_ops": ["verify"]}
    yield as_json({"keys": [ed, ec, rsa]})
    for more in members(
        {"d": SECRET},
        {"use": "enc"},
        {"key_ops": []},
        {"alg": "ES256"},
        {"alg": "none"},
        {"kid": "k\n" + "x" * 200},
        {"x": "A" * 43},
        {"d": None},
    ):
        yield as_json({"keys": [{**key, **more} for key in (ed, ec, rsa)]})
    for name in ("p", "q", "dp", "dq", "qi", "oth", "k"):
        yield as_json({"keys": [{**rsa, name: "x" * 170 + "w"}]})
    yield as_json({"keys": [{"kty": "oct", "k": SECRET}]})
    yield as_json(
        {"keys": [{**rsa, "e": "x" * 400}, {**rsa, "n": "x" * 3000}, {**ec, "crv": "P-521"}]}
    )
    yield b'{"keys":[' + b",".join([b"{}"] * 150) + b"]}"
    for text in ("[]", '{"keys":{}}', '{"keys":null}', "{", '{"keys":[1,null,"x",[]]}'):
        yield text.encode()


def grid_configs() -> Seeds:
    """Configurations of ODIN servers."""
    found: list[str] = []
    for send in recorded("grid_config"):
        try:
            config = json.loads(send["body"])["params"]["config"]
        except (KeyError, TypeError, ValueError):
            continue
        if isinstance(config, str) and len(config) < 1500:
            found.append(config)
    yield from (text.encode() for text in distinct(iter(found), 25))
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
    acme = document("acme", access_key(), access_key("k2", OTHER_X, namespace="n"))
    yield as_json([acme])
    yield as_json({"customers": [acme, document("beta", access_key("k2"))]})
    yield as_json([acme, document("acme")])
    yield as_json([document("acme", access_key(), access_key("k1", OTHER_X))])
    for more in members(
        {"maxPeers": -1},
        {"maxPeers": True},
        {"maxPeers": 1e3},
        {"maxRooms": "5"},
        {"id": ""},
        {"id": 5},
        {"accessKeys": {}},
        {"accessKeys": [1, {"publicKey": []}, {"publicKey": {"kid": "k", "d": SECRET}}]},
    ):
        yield as_json([{**acme, **more}, document("last")])
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
    good: dict[str, object] = {
        "secretKeys": ["hunter2hunter2hunter2"],
        "ttl": 60,
        "turnUris": ["turn:a.test:3478?transport=udp", "b.test"],
        "stunUris": ["stun:a.test"],
        "jwkUrls": ["https://a.test/jwks"],
        "userClaim": "sub",
    }
    yield as_json(good)
    for more in members(
        {"forceUser": "u", "ignoreJwt": True},
        {"turnUris": ["turn:[::1", "stun:x", "turn:u:p@h"]},
        {"jwkUrls": ["http://a.test", "https://u:hunter2hunter2hunter2@h", "https://[", "x"]},
        {"publicKeys": ["AAAA", "MCowBQYDK2VwAyEA" + "A" * 43 + "="]},
        {"ttl": 0, "allowedOrigin": "x"},
        {"nope\n": 1, "secretKey": "hunter2hunter2hunter2"},
        {"secretKeys": "hunter2hunter2hunter2"},
    ):
        yield as_json({**good, **more})
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
