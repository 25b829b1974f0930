"""Documents: servers' TOML, JWK sets, lists of customers, and the configuration."""

import json
import re
import tempfile
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import tomlkit
from jwt import PyJWK, PyJWTError
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent

from odingw.config import Config, load
from odingw.customers import CustomerRefresher, Directory
from odingw.customers.directory import directory
from odingw.customers.sources import FileSource
from odingw.documents import is_absent, unmarked, unmarked_values, without_marks
from odingw.errors import INVALID_PARAMS, ConfigError, KeyMaterialError, RpcError
from odingw.rpc.grid_config import extend, recommended
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import MAX_JWKS, VerifyingKey, jwk_set
from odingw.turn.settings import from_turnrest_json
from odingw.turn.uris import Scheme, parse_uri
from tests.test_grid_config import is_kept, merged, typed

_SEED: Final = re.compile(r'"d": ?"([\w-]{20,})"')
_HIDDEN: Final = re.compile(
    r"""^(?:password|master_key|forced_password|secret_keys)\ =\ \[?"([\w./+-]{12,})"
    | "(?:secretKeys?|forcedPassword|jwkUrls)":\ ?\[?"([\w./+-]{12,})[\x22]""",
    re.VERBOSE | re.MULTILINE,
)
_SETTINGS: Final = recommended(5, "0.0.0.0/0", {"log": {"verbosity": 2}})
_JWK: Final = {"kid": "Ag7k", "kty": "OKP", "crv": "Ed25519", "x": "eHg", "d": "ZGQ"}
_WANTED: Final = {**_SETTINGS, "authorization": {"keys": [_JWK]}}
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth")
"""The private members of a key pair (RFC 7518, section 6; RFC 8037, section 2)."""


@cache
def _folder() -> Path:
    """A folder of this process, in memory where the system has such a thing."""
    memory = Path("/dev/shm")  # noqa: S108  -- a folder of its own is made in it
    made = tempfile.mkdtemp(prefix="odingw-fuzz-", dir=memory if memory.is_dir() else None)
    return Path(made).resolve()


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def grid_config(data: bytes) -> None:
    """The configuration of an ODIN server."""
    # Half surrogates are what bytes that are no UTF-8 become.
    text = data.decode("utf-8", "surrogateescape")
    try:
        result = extend(text, _SETTINGS, _JWK)
    except RpcError as error:
        assert error.code == INVALID_PARAMS
        assert "\n" not in (error.data or {})["detail"]
        assert len((error.data or {})["detail"]) < 400
        return
    theirs = tomllib.loads(text)
    wanted = typed(merged(theirs, _WANTED))
    assert typed(tomllib.loads(result)) == wanted
    if not _has_tables(theirs, "metrics", "allowed"):
        assert is_kept(text, result), "something of the text is lost"
    # It needs most of the time, and more than its share of long texts, so it is asked now and then.
    if crc32(data) % 8 == 0 and len(text) < 500 and _kit(text) == typed(theirs):
        assert _kit(result) == wanted, "tomlkit reads it otherwise"


def _has_tables(theirs: Mapping[str, Any], *path: str) -> bool:
    """Whether there are ``[[headers]]``, to which nothing but tables can be added."""
    value: Any = theirs
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _kit(text: str) -> object:
    """What tomlkit reads; None where it trips over what is TOML."""
    try:
        return typed(tomlkit.parse(text).unwrap())
    except Exception:
        return None


def keys_of_a_set(data: bytes) -> None:
    """A JWK set as an issuer's server sends it."""
    try:
        found = jwk_set(data, "the set")
    except KeyMaterialError as error:
        assert str(error).isprintable()
        return
    for problem in found.problems:
        assert "\n" not in problem
        assert len(problem) < 500
    assert len(found.keys) <= MAX_JWKS
    try:
        parts = [_present(part) for part in json.loads(unmarked(data))["keys"]]
    except (ValueError, RecursionError):
        return
    left_out = min(len(parts), MAX_JWKS + 1) - len(found.keys) - len(found.problems)
    purposes = [part for part in parts if isinstance(part, dict) and _PURPOSE & part.keys()]
    assert 0 <= left_out <= len(purposes), "a key is left out in silence, and not for its purpose"
    _check_problems(found.problems, parts)
    rest = iter(parts[:MAX_JWKS])
    for key in found.keys:
        assert any(_is_of(key, part) for part in rest), "a key that is not in the set"


_PURPOSE: Final = frozenset({"use", "key_ops", "alg"})


def _present(part: Any) -> Any:
    """Return what a JWK says, without the members that are absent."""
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if not is_absent(value)}


def _check_problems(problems: tuple[str, ...], parts: list[Any]) -> None:
    """No log line tells a secret."""
    for part in parts:
        for name in (*_PRIVATE, "k") if isinstance(part, dict) else ():
            secret = part.get(name)
            if isinstance(secret, str) and len(secret) > 16 and secret != part.get("kid"):
                assert not any(secret in problem for problem in problems), "a secret is told"


def _is_of(key: VerifyingKey, part: Any) -> bool:
    """Whether a key is what PyJWT reads from a JWK without private parts."""
    if not isinstance(part, dict) or any(name in part for name in _PRIVATE):
        return False
    if part.get("kid") != key.kid or part.get("use", "sig") != "sig":
        return False
    # PyJWT takes no white space in numbers, and no byte order marks.
    numbers = {name: "".join(without_marks(part[name]).split()) for name in "nexy" if name in part}
    try:
        # PyJWT knows Ed25519 as EdDSA alone.
        twin: Any = PyJWK({**part, **numbers, "alg": min(key.algorithms - {"Ed25519"})}).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return False
    if isinstance(key.key, bytes):
        same = twin.public_bytes_raw() == key.key
    else:
        same = twin.public_numbers() == key.key.public_numbers()
    return same and key.algorithms <= {part.get("alg", min(key.algorithms)), *key.algorithms}


def _new_refresher(path: Path, events: list[LogEvent]) -> CustomerRefresher:
    def at_once(work: Any) -> Deferred[Any]:
        return execute(work)

    observer: Any = events.append
    source = FileSource(path, defer_to_thread=at_once)
    return CustomerRefresher(Directory(), source, 60, Clock(), Logger("test", observer=observer))


_GOOD: Final = (
    b'[{"id":"good","maxPeers":1,"maxRooms":null,"accessKeys":[{"publicKey":{"kid":"k0",'
    b'"kty":"OKP","crv":"Ed25519","x":"ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4"}}]}]'
)


def customers(data: bytes) -> None:
    """A list of customers that comes after a good one."""
    events: list[LogEvent] = []
    refresher = _new_refresher(_file("customers.json", _GOOD), events)
    outcomes: list[bool] = []
    refresher.refresh().addCallback(outcomes.append)
    before = refresher.directory
    _file("customers.json", data)
    refresher.refresh().addCallback(outcomes.append)
    assert outcomes[0]
    _check_lines(events, data.decode("utf-8", "replace"))
    after = refresher.directory
    if not outcomes[1]:
        assert after is before, "the last good list is gone"
        assert refresher.failures == 1
        return
    assert after.customers, "nobody is left"
    value = unmarked_values(json.loads(unmarked(data).decode("utf-8", "replace")))
    documents = value["customers"] if isinstance(value, dict) else value
    _check_directory(after, documents)


def _check_lines(events: list[LogEvent], text: str) -> None:
    secrets = [secret for secret in _SEED.findall(text) if text.count(secret) == 1]
    for event in events:
        line = formatEvent(event)
        assert "\n" not in line
        assert len(line) < 1000
        assert not any(secret in line for secret in secrets)


def _check_directory(found: Directory, documents: list[Any]) -> None:
    """All that is let in stands in the list, and no key is two customers'."""
    theirs: dict[str, list[Any]] = {}
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("accessKeys"), list):
            theirs.setdefault(str(document.get("id")), []).append(document)
    claims: dict[str, set[str]] = {}
    for customer in found.customers.values():
        limits = [
            (each.get("maxPeers", -1), each.get("maxRooms", -1)) for each in theirs[customer.id]
        ]
        assert (customer.max_peers, customer.max_rooms) in limits
        for limit in (customer.max_peers, customer.max_rooms):
            assert limit is None or (type(limit) is int and limit >= 0)
        for document in theirs[customer.id]:
            for each in document["accessKeys"]:
                public = each.get("publicKey") if isinstance(each, dict) else None
                if isinstance(public, dict) and isinstance(public.get("kid"), str):
                    claims.setdefault(public["kid"], set()).add(customer.id)
    for kid, key in found.keys.items():
        assert key.kid == kid
        assert len(key.public_key) == 32
        assert key.customer == found.customers[key.customer.id]
        assert key.customer.id in claims[kid]
        assert key.namespace
        assert kid not in found.refused
    again = directory(documents)
    assert (again.keys, again.customers) == (found.keys, found.customers)


def config(data: bytes) -> None:
    """The configuration file."""
    path = _file("odingw.toml", data)
    try:
        loaded = load(path)
    except ConfigError as error:
        _check_config_error(error, str(path))
        _check_secrets(data, str(error))
    else:
        assert isinstance(loaded, Config)
        _check_secrets(data, repr(loaded))


def _check_secrets(data: bytes, shown: str) -> None:
    """What stands where secrets belong, and nowhere else, is not shown."""
    text = data.decode("utf-8", "replace")
    for one, other in _HIDDEN.findall(text):
        secret = one or other
        assert text.count(secret) > 1 or secret not in shown, "a secret may get into a log"


def turnrest(data: bytes) -> None:
    """A TurnRest file."""
    try:
        settings, warnings = from_turnrest_json(data, "turnrest.json", None)
    except ConfigError as error:
        _check_config_error(error, "turnrest.json")
        _check_secrets(data, str(error))
        return
    for warning in warnings:
        assert warning.isprintable()
        assert warning.startswith("turnrest.json: ")
    assert settings.turn_uris
    for uri in settings.turn_uris:
        assert parse_uri(uri, "turn").text == uri
    TurnAuthenticator(settings)


def _check_config_error(error: ConfigError, source: str) -> None:
    line = str(error)
    assert line.isprintable(), f"not one clean line: {line!r}"
    assert line.startswith(f"{source}: "), line
    assert len(line) < 1000, len(line)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


def uri(data: bytes) -> None:
    """A TURN or STUN URI."""
    text = data.decode("utf-8", "surrogateescape")
    scheme: Scheme
    for scheme in ("turn", "stun"):
        try:
            found = parse_uri(text, scheme)
        except ValueError as error:
            assert type(error) is ValueError, error
            assert str(error).isprintable()
            assert "@" not in str(error).replace('"@"', "")
            continue
        assert parse_uri(found.text, scheme) == found, "its own text is another URI"
        assert found.text.isascii()
        assert found.text.isprintable()
        assert 0 < found.port < 65536
