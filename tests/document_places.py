"""All places where text from elsewhere is read: one table for each rule of ``odingw.documents``."""

import json
import tempfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from click.testing import CliRunner
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.cli.main import odingw
from odingw.client.wire import make_call, read_reply
from odingw.config import Options, load
from odingw.customers import directory
from odingw.customers.sources import FileSource, decoded
from odingw.master_key import FILE_NAME, find
from odingw.rpc.grid_config import extend, reports_elsewhere
from odingw.rpc.jsonrpc import Engine, Method, Reply
from odingw.rpc.openrpc import NoParams
from odingw.secret_files import read_secret
from odingw.tokens import decode_master_key, load_public_jwk
from odingw.turn.keys import jwk_set, static_key
from odingw.turn.settings import from_turnrest_json
from odingw.turn.turnrest_file import TurnFile
from tests.jwk_server import Jwk, document, public_jwk, spki_text

ACCESS_KEY: Final = "AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA"
JWK: Final = {
    "kid": "AQ7aVmK+pI1l",
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4",
}
SECRET: Final = "hunter2hunter2hunter2"
TURN: Final[dict[str, Any]] = {"secretKey": SECRET, "turnURIS": ["turn:turn.test"]}
MASTER_KEY: Final = b64encode(bytes(range(32))).decode()


class Place(NamedTuple):
    """Where text is read.

    Attributes:
        name: what is read there.
        text: something good.
        read: reads it, and returns what was found; it fails with an exception.
    """

    name: str
    text: bytes
    read: Callable[[bytes], object]


def customer(**members: object) -> dict[str, Any]:
    """A customer as a list from elsewhere has it."""
    keys = [{"publicKey": JWK}]
    return {"id": "acme", "maxPeers": 5, "maxRooms": None, "accessKeys": keys, **members}


def in_file(read: Callable[[Path], object], name: str = "file") -> Callable[[bytes], object]:
    """Read a new file with the function."""

    def read_bytes(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            path.chmod(0o600)
            return read(path)

    return read_bytes


def named_in_toml(lines: str, found: Callable[[Any], object]) -> Callable[[bytes], object]:
    """Read a new file that ``lines`` name as FILE."""

    def read(path: Path) -> object:
        toml = path.with_name("odingw.toml")
        toml.write_text(lines.replace("FILE", path.name))
        toml.chmod(0o600)
        return found(load(toml))

    return in_file(read)


def ask(body: bytes) -> Any:
    """Ask an engine that has the method ``hello``."""
    methods: dict[str, Method[None]] = {"hello": Method(NoParams, lambda *_: "hi")}
    engine = Engine(methods, 10, lambda *_: None, lambda *_: None)
    reply = engine.handle(body, None)
    if not isinstance(reply, Reply):
        coroutine: Any = reply
        try:
            coroutine.send(None)
        except StopIteration as end:
            reply = end.value
    found: Any = json.loads(getattr(reply, "body", b"null"))
    if "error" in found:
        raise ValueError(found)
    return found


def _customers_of_file(path: Path) -> object:
    case = SynchronousTestCase()
    return case.successResultOf(FileSource(path, defer_to_thread=maybeDeferred).fetch())


def _command(*arguments: str) -> Callable[[Path], object]:
    def run(path: Path) -> object:
        result = CliRunner().invoke(odingw, [*arguments, str(path)])
        if result.exit_code:
            raise ValueError(result.output)
        return result.stdout

    return run


def _master_key(path: Path) -> object:
    return find(load(None), "", path.parent, option=False).keys


_TURN_TOML: Final = '[turn]\nturn_uris = ["turn:turn.test"]\n'
_CUSTOMERS: Final = json.dumps([customer()]).encode()
_ANSWER: Final = b'{"jsonrpc": "2.0", "id": %d, "result": 5}'
_CALL: Final = {"jsonrpc": "2.0", "id": 1, "method": "hello"}


def _answer(data: bytes) -> object:
    call = make_call("hello", None)
    return read_reply(call, 200, None, data.replace(b"%d", b"%d" % call.id), (), int)


TEXTS: Final = (
    Place("request", json.dumps(_CALL).encode(), ask),
    Place("batch", json.dumps([_CALL]).encode(), lambda data: ask(data)[0]),
    Place("GridConfig", b"a = 1", lambda data: extend(data.decode(), {}, JWK)),
    Place("GridConfig, reports", b"[provisioning]", lambda d: reports_elsewhere(d.decode())),
    Place("reply to the client", _ANSWER, _answer),
    Place("JWK set", document([public_jwk("RSA")]), lambda data: jwk_set(data, "a set")),
    Place("customers, body", _CUSTOMERS, decoded),
    Place("customers, file", _CUSTOMERS, in_file(_customers_of_file)),
    Place("customers, command", _CUSTOMERS, in_file(_command("customers", "--json"))),
    Place("configuration", b"[turn]\nttl = 5\n", in_file(lambda path: load(path).turn)),
    Place("TurnRest text", json.dumps(TURN).encode(), lambda data: from_turnrest_json(data, "")),
    Place("TurnRest file", json.dumps(TURN).encode(), in_file(lambda path: TurnFile(path).load())),
    Place("file with a secret", SECRET.encode(), in_file(read_secret)),
    Place(
        "turn.secret_keys_file",
        SECRET.encode(),
        named_in_toml(
            f'{_TURN_TOML}secret_keys_file = "FILE"\n', lambda config: config.turn.secret_keys
        ),
    ),
    Place(
        "gateway.master_key_file",
        MASTER_KEY.encode(),
        named_in_toml(
            '[gateway]\nmaster_key_file = "FILE"\n', lambda config: config.gateway.master_keys
        ),
    ),
    Place("odingw.masterkey", MASTER_KEY.encode(), in_file(_master_key, FILE_NAME)),
    Place("master key", MASTER_KEY.encode(), lambda data: decode_master_key(data.decode())),
    Place(
        "access key",
        ACCESS_KEY.encode(),
        in_file(_command("access-key", "show", "--json", "--access-key-file")),
    ),
    Place("public key", spki_text("RSA").encode(), lambda data: static_key(data.decode(), "")),
)
"""Where a byte order mark is skipped."""

SECRET_LINES: Final = ("turn.secret_keys_file", "gateway.master_key_file", "odingw.masterkey")
"""Those of ``TEXTS`` that have a secret on each line."""


class Number(NamedTuple):
    """Where a whole number is read from JSON.

    Attributes:
        name: what it is.
        read: reads the JSON text of the number.
    """

    name: str
    read: Callable[[str], object]


def _turn_ttl(number: str) -> object:
    text = json.dumps(TURN | {"ttl": "N"}).replace('"N"', number).encode()
    return from_turnrest_json(text, "")[0].ttl


def _limit(member: str) -> Callable[[str], object]:
    def read(number: str) -> object:
        text = json.dumps([customer(**{member: "N"})]).replace('"N"', number).encode()
        return next(iter(directory(decoded(text)).customers.values()))

    return read


def _limit_of_function(number: str) -> object:
    return directory([customer(maxPeers=json.loads(number))]).customers["acme"].max_peers


NUMBERS: Final = (
    Number("TurnRest ttl", _turn_ttl),
    Number("customer maxPeers", _limit("maxPeers")),
    Number("customer maxRooms", _limit("maxRooms")),
    Number("customer of a function", _limit_of_function),
    Number(
        "id of a call",
        lambda number: ask(b'{"jsonrpc":"2.0","id":%b,"method":"hello"}' % number.encode())["id"],
    ),
)
"""Where 5.0 is 5; the parameters of methods have no integers at all, see the test."""


def _set_with(jwk: Jwk) -> object:
    found = jwk_set(document([jwk]), "a set")
    if found.problems:
        raise ValueError(found.problems)
    return found.keys


def _jwk_number(kind: str, member: str) -> Place:
    jwk = public_jwk(kind, kid="a")
    return Place(
        f"{kind} {member} of a JWK set",
        jwk[member].encode(),
        lambda data: _set_with({**jwk, member: data.decode()}),
    )


def _configured_customer(data: bytes) -> object:
    jwk = {**JWK, "x": data.decode()}
    return directory([customer(accessKeys=[{"publicKey": jwk}])]).keys[JWK["kid"]]


def _turn_public_key(data: bytes) -> object:
    settings, _ = from_turnrest_json(
        json.dumps(TURN | {"jwtPublicKeys": [data.decode()]}).encode(), ""
    )
    return static_key(settings.public_keys[0], "")


BASE64: Final = (
    Place("master key", MASTER_KEY.encode(), lambda data: decode_master_key(data.decode())),
    Place(
        "--masterkey",
        MASTER_KEY.encode(),
        lambda d: load(None, Options(masterkey=d.decode())).gateway.decoded_master_keys(),
    ),
    Place(
        "gateway.master_key_file",
        MASTER_KEY.encode(),
        named_in_toml(
            '[gateway]\nmaster_key_file = "FILE"\n',
            lambda config: config.gateway.decoded_master_keys(),
        ),
    ),
    Place("odingw.masterkey", MASTER_KEY.encode(), in_file(_master_key, FILE_NAME)),
    Place(
        "public key of an Ed25519",
        spki_text("Ed25519").encode(),
        lambda data: static_key(data.decode(), ""),
    ),
    Place(
        "public key of a P-256",
        spki_text("P-256").encode(),
        lambda data: static_key(data.decode(), ""),
    ),
    Place(
        "public key of an RSA",
        spki_text("RSA").encode(),
        lambda data: static_key(data.decode(), ""),
    ),
    Place("TurnRest jwtPublicKeys", spki_text("Ed25519").encode(), _turn_public_key),
    Place("a customer's x", JWK["x"].encode(), _configured_customer),
    Place(
        "load_public_jwk",
        JWK["x"].encode(),
        lambda data: load_public_jwk({**JWK, "x": data.decode()}),
    ),
    *(
        _jwk_number(*place)
        for place in (
            ("RSA", "n"),
            ("RSA", "e"),
            ("P-256", "x"),
            ("P-256", "y"),
            ("P-384", "x"),
            ("Ed25519", "x"),
        )
    ),
)
"""Where padding may be there or not; an access key's 33 bytes never have any."""


class Members(NamedTuple):
    """Members of which null, an empty list and an empty text say nothing.

    Attributes:
        name: where they are.
        names: the members that may be absent.
        read: reads a document with these members more.
    """

    name: str
    names: tuple[str, ...]
    read: Callable[[dict[str, Any]], object]


def _jwk_members(kind: str) -> Members:
    private = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
    other = {"RSA": ("crv", "x", "y"), "P-256": ("n", "e"), "Ed25519": ("n", "e", "y")}[kind]
    names = ("kid", "alg", "use", "key_ops", "x5c", "x5t", "x5u", *private, *other)
    return Members(f"{kind} JWK", names, lambda more: _set_with({**public_jwk(kind), **more}))


def _access_key(more: dict[str, Any]) -> object:
    found = directory([customer(accessKeys=[{"publicKey": JWK, **more}])])
    return found.keys, found.problems


def _customer_jwk(more: dict[str, Any]) -> object:
    found = directory([customer(accessKeys=[{"publicKey": {**JWK, **more}}])])
    return found.keys, found.problems


def _turnrest(more: dict[str, Any]) -> object:
    return from_turnrest_json(json.dumps(TURN | more).encode(), "")


ABSENT: Final = (
    _jwk_members("RSA"),
    _jwk_members("P-256"),
    _jwk_members("Ed25519"),
    Members("access key of a customer", ("namespace", "name"), _access_key),
    Members("a customer's JWK", ("d", "alg", "use", "key_ops", "x5c"), _customer_jwk),
    Members(
        "TurnRest file",
        (
            "secretKeys", "allowedOrigin", "ttl", "forcedUser", "forceUser", "forcedPassword",
            "ignoreJWT", "userClaim", "requiredJWTScope", "jwkURIS", "jwkURLs", "jwtPublicKeys",
            "stunURIS",
        ),
        _turnrest,
    ),
)  # fmt: skip
"""Where a member says nothing by null, [] or an empty text; tokens' headers have their own."""


class Items(NamedTuple):
    """A list of which items that are null, an empty text or an empty list say nothing.

    Attributes:
        name: the member that is the list.
        item: one that says something.
        read: reads a document with that list.
    """

    name: str
    item: str
    read: Callable[[object], object]


def _items_of_turnrest(name: str, item: str) -> Items:
    return Items(name, item, lambda value: _turnrest({name: value}))


def _key_ops(kind: str) -> Items:
    return Items(
        f"key_ops of {kind}", "verify", lambda value: _set_with(public_jwk(kind, key_ops=value))
    )


ITEMS: Final = (
    _items_of_turnrest("secretKeys", SECRET * 2),
    _items_of_turnrest("allowedOrigin", "https://a.example"),
    _items_of_turnrest("requiredJWTScope", "turn"),
    _items_of_turnrest("jwkURIS", "https://a.example/jwks"),
    _items_of_turnrest("jwkURLs", "https://a.example/jwks"),
    _items_of_turnrest("jwtPublicKeys", spki_text("Ed25519")),
    _items_of_turnrest("turnURIS", "turn:a.example"),
    _items_of_turnrest("stunURIS", "stun:a.example"),
    _key_ops("RSA"),
    _key_ops("P-256"),
    _key_ops("Ed25519"),
)
"""Where items that say nothing are absent; of nothing but these a list is absent itself.

A customer, an access key or a key of a set that is null is a wrong entry like others: it is left
out, with a line in the log.
"""


class Values(NamedTuple):
    """A document of which no name and no text has a byte order mark in it.

    Attributes:
        name: what it is.
        value: something good.
        read: reads the value as JSON, or what TOML says in the same words.
    """

    name: str
    value: Any
    read: Callable[[str], object]


_EVERY_TEXT: Final = TURN | {
    "secretKeys": [SECRET * 2],
    "allowedOrigin": ["https://a.example", "https://b.example"],
    "forcedPassword": "password",
    "userClaim": "user/claim",
    "requiredJWTScope": ["turn"],
    "jwkURIS": ["https://a.example/jwks"],
    "jwtPublicKeys": [spki_text("Ed25519")],
    "stunURIS": ["stun:stun.test"],
}
_CONFIGURED: Final = {
    "secret_keys": [SECRET],
    "allowed_origin": "https://a.example",
    "forced_user": "guest",
    "required_scopes": ["turn"],
    "scope_claims": ["scope"],
    "issuer": "https://login.example",
    "turn_uris": ["turn:turn.test"],
}


def _toml(section: str) -> Callable[[str], object]:
    """Read JSON, of which TOML has the strings and lists, as a section of the configuration."""

    def read(text: str) -> object:
        pairs = json.loads(text).items()
        quoted = (f'"{name}" = {json.dumps(value)}\n' for name, value in pairs)
        config: Any = in_file(load)(f"[{section}]\n{''.join(quoted)}".encode())
        return config.turn, config.admin.users, config.gateway.internal.users

    return read


def _numbers(text: str) -> object:
    n, e, x = json.loads(text)
    return _set_with({**public_jwk("RSA"), "n": n, "e": e}), load_public_jwk({**JWK, "x": x})


VALUES: Final = (
    Values("TurnRest file", _EVERY_TEXT, lambda text: from_turnrest_json(text.encode(), "")),
    Values(
        "customers",
        [customer(namespace="acme", accessKeys=[{"namespace": "a", "publicKey": JWK}])],
        lambda text: directory(decoded(text.encode())),
    ),
    Values("turn", _CONFIGURED, _toml("turn")),
    Values("admin.users", {"ann": SECRET}, _toml("admin.users")),
    Values("gateway.internal.users", {"ann": SECRET}, _toml("gateway.internal.users")),
    Values("JWK", [*map(public_jwk("RSA").get, "ne"), JWK["x"]], _numbers),
)
"""Where a byte order mark in a text, or in a member's name, is no part of it."""


class Entries(NamedTuple):
    """A list of entries, of which a wrong one is left out.

    Attributes:
        name: what the entries are.
        bad: how the wrong one is called in the line about it.
        read: reads a list of a wrong and a good entry, the first with these members more; it
            returns what was found, and the lines.
    """

    name: str
    bad: str
    read: Callable[[dict[str, Any]], tuple[object, tuple[str, ...]]]


def _keys_of_set(more: dict[str, Any]) -> tuple[object, tuple[str, ...]]:
    bad, good = {**public_jwk("RSA", kid="bad"), **more}, public_jwk("Ed25519", kid="good")
    found = jwk_set(document([bad, good]), "a set")
    return [key.kid for key in found.keys], found.problems


def _customers(more: dict[str, Any]) -> tuple[object, tuple[str, ...]]:
    data = json.dumps([customer(id="bad", **more), customer(id="good", accessKeys=[])]).encode()
    found = directory(decoded(data))
    return list(found.customers), found.problems


def _access_keys(more: dict[str, Any]) -> tuple[object, tuple[str, ...]]:
    bad = {"publicKey": {**JWK, "kid": "bad", **more}}
    keys = [bad, {"publicKey": {**JWK, "kid": "good"}}]
    data = json.dumps([customer(accessKeys=keys)]).encode()
    found = directory(decoded(data))
    return list(found.keys), found.problems


ENTRIES: Final = (
    Entries("keys of a set", "key 1 ('bad') of a set", _keys_of_set),
    Entries("customers", "customer 'bad'", _customers),
    Entries("access keys", "access key 1 ('bad') of customer 'acme'", _access_keys),
)
"""Where one wrong entry does not spoil the others."""
