"""Tokens and keys: our verifiers against PyJWT, and what comes of texts that are no keys.

A token as it goes over the wire holds no NUL byte. An input with one is a header and a payload,
which are signed here, so that the fuzzer gets past the signature.
"""

import base64
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm
from twisted.internet.defer import Deferred

from odingw.customers import Customer, CustomerKey
from odingw.errors import FORBIDDEN, KeyMaterialError, RpcError, TokenError, TokenFault
from odingw.rpc.callers import AccessRules, Authenticator, DemoLimits
from odingw.tokens import (
    AccessKey,
    Claims,
    Policy,
    SecretKey,
    base64url,
    decode_master_key,
    is_key_id,
    key_id,
    load_public_jwk,
    verify,
)
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import VerifyingKey, jwk
from odingw.turn.settings import TurnSettings
from tests.fuzz.rpc import METHODS

NOW: Final = 1_700_000_000.0
KEY: Final = SecretKey(bytes(range(32)))
SERVER_KEY: Final = SecretKey(bytes(range(1, 33)))

_CUSTOMER_KEY: Final = CustomerKey(KEY.kid, KEY.public_key, "acme", Customer("acme", 5, None))
_TWIN: Final = Ed25519PrivateKey.from_private_bytes(KEY.seed)
_EC: Final = derive_private_key(20_240_229, SECP256R1())
_PEM: Final = _EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

Sign: TypeAlias = Callable[[bytes], bytes]


def compact(header: bytes, payload: bytes, sign: Sign) -> str:
    """Return a JWS of any header and payload."""
    signed = base64url.encode(header) + b"." + base64url.encode(payload)
    return (signed + b"." + base64url.encode(sign(signed))).decode()


def _token(data: bytes, sign: Sign) -> str:
    header, nul, payload = data.partition(b"\0")
    return compact(header, payload, sign) if nul else data.decode("utf-8", "surrogateescape")


def _check_silent(message: str, *secrets: str) -> None:
    """No error repeats what was sent; short pieces may be words of the message by chance."""
    assert message.isprintable(), message
    for secret in secrets:
        assert len(secret) < 16 or secret not in message, message


def _pyjwt(token: str, key: Any, algorithm: str) -> bytes | None:
    """Return the payload, if PyJWT takes the signature."""
    try:
        payload: bytes = jwt.PyJWS(algorithms=[algorithm]).decode_complete(
            token.encode(), key, algorithms=[algorithm]
        )["payload"]
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return payload


def access_token(data: bytes) -> None:
    """A token of the client API."""
    token = _token(data, KEY.sign)
    policy = Policy()
    keys = {KEY.kid: KEY, SERVER_KEY.kid: SERVER_KEY}
    try:
        verified = verify(token, keys.get, now=NOW, policy=policy)
    except TokenError as error:
        _check_silent(error.message, *token.split("."))
        if error.fault is TokenFault.SIGNATURE:
            assert _pyjwt(token, _TWIN.public_key(), "EdDSA") is None, "PyJWT takes the signature"
        if error.fault is TokenFault.EXPIRED:
            _check_expired(token, policy)
    else:
        assert verified.key is KEY, "nobody has the other key"
        payload = base64url.decode(token.split(".")[1].encode())
        if not _is_unencoded(token):
            assert _pyjwt(token, _TWIN.public_key(), "EdDSA") == payload
        _check_claims(verified.claims, payload)
    for demo in (None, DemoLimits(1, 1, 1)):
        _authenticate(token, demo)


def _is_unencoded(token: str) -> bool:
    """Whether a header names RFC 7797's ``b64``, which binds nobody unless it is critical."""
    header = json.loads(base64url.decode(token.split(".")[0].encode()))
    return "b64" in header


def _check_expired(token: str, policy: Policy) -> None:
    claims = json.loads(base64url.decode(token.split(".")[1].encode()))
    assert "exp" not in claims or NOW - claims["exp"] > policy.leeway


def _check_claims(claims: Claims, payload: bytes) -> None:
    """The claims are those of the JSON, and good."""
    told = json.loads(payload)
    for name in ("rid", "uid", "sub", "aud", "exp", "nbf", "adr", "tgs", "ups", "cid", "nsp"):
        value: object = getattr(claims, name)
        if isinstance(value, tuple):
            value = list(value)
        assert (value is msgspec.UNSET) == (name not in told)
        assert value is msgspec.UNSET or value == told[name], f"{name}: {value!r}"
    assert claims.rid is not msgspec.UNSET
    assert isinstance(claims.uid, str)
    assert isinstance(claims.exp, int | float)
    assert NOW - claims.exp <= 60
    assert claims.nbf is msgspec.UNSET or claims.nbf - NOW <= 60


def _authenticate(token: str, demo: DemoLimits | None) -> None:
    rules = AccessRules(unknown_customers=demo)
    authenticator = Authenticator(
        METHODS,
        rules,
        {KEY.kid: _CUSTOMER_KEY}.get,
        {SERVER_KEY.kid: SERVER_KEY}.get,
        lambda name: name == "acme",
    )
    try:
        caller = authenticator.authenticate(token, NOW)
    except TokenError as error:
        _check_silent(error.message, *token.split("."))
    except RpcError as error:
        assert error.code == FORBIDDEN, error
    else:
        assert caller.methods
        assert set(METHODS).issuperset(caller.methods)
        if caller.kid != KEY.kid:
            # The signature of a demo user's token cannot be checked.
            assert demo is not None
            assert caller.customer == f"demo_{caller.kid}" == caller.namespace
            assert set(caller.methods) == {"Connect"}
        else:
            assert (caller.customer, caller.max_peers) == ("acme", 5)


class Set:
    """A JWK set with the two keys, which never changes."""

    def __init__(self) -> None:
        numbers = ECAlgorithm.to_jwk(_EC.public_key(), as_dict=True)
        twin = json.dumps({**numbers, "kid": "ec"}).encode()
        mine = json.dumps({"kty": "OKP", "crv": "Ed25519", "x": KEY.public_jwk().x}).encode()
        self.keys: tuple[VerifyingKey, ...] = (jwk(twin, "a set"), jwk(mine, "a set"))

    def lookup(self) -> Deferred[float] | None:
        """Say that there are no other keys."""
        return None


_SET: Final = Set()


@cache
def _settings(number: int) -> TurnSettings:
    strict = {"issuer": "me", "audience": "turn", "required_scopes": ("turn",)}
    more: dict[str, Any] = strict if number % 2 else {}
    return TurnSettings(turn_uris=("turn:turn.test",), access_keys=number > 1, **more)


def _sign_as(header: bytes) -> Sign:
    """Sign as the header says, also with the secret that must never be one: the public key."""
    try:
        algorithm = json.loads(header).get("alg")
    except (ValueError, AttributeError, RecursionError):
        algorithm = None
    if algorithm == "ES256":
        return lambda message: ECAlgorithm(ECAlgorithm.SHA256).sign(message, _EC)
    if isinstance(algorithm, str) and algorithm.startswith("HS"):
        return lambda message: HMACAlgorithm(HMACAlgorithm.SHA256).sign(message, _PEM)
    if algorithm == "none":
        return lambda _: b""
    return KEY.sign


def turn_token(data: bytes) -> None:
    """A token for TURN credentials, under four settings."""
    token = _token(data, _sign_as(data.partition(b"\0")[0]))
    for number in range(4):
        settings = _settings(number)
        authenticator = TurnAuthenticator(settings, [_SET], {KEY.kid: _CUSTOMER_KEY}.get)
        try:
            claims = authenticator.authenticate(token, NOW)
        except TokenError as error:
            _check_silent(error.message, *token.split("."))
            continue
        assert isinstance(claims, Mapping), "nothing is fetched here"
        assert claims == authenticator.authenticate(token, NOW), "asked again, the same"
        _check_turn(token, claims, settings)


def _check_turn(token: str, claims: Mapping[str, Any], settings: TurnSettings) -> None:
    """What was accepted is signed, by PyJWT's word too, and says what it must."""
    payloads = [
        _pyjwt(token, _TWIN.public_key(), "EdDSA"),
        _pyjwt(token, _EC.public_key(), "ES256"),
    ]
    (payload,) = [one for one in payloads if one is not None]
    told = json.loads(payload)
    assert claims == told
    kid = jwt.get_unverified_header(token).get("kid")
    assert "exp" not in told or NOW - told["exp"] <= settings.leeway
    assert "nbf" not in told or told["nbf"] - NOW <= settings.leeway
    if settings.issuer is not None and not (settings.access_keys and kid == KEY.kid):
        assert told["iss"] == settings.issuer
        assert settings.audience in (
            told["aud"] if isinstance(told["aud"], list) else [told["aud"]]
        )


def access_key(data: bytes) -> None:
    """Texts of keys: access keys, key ids, master keys, and public JWKs."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        key = AccessKey(text)
    except KeyMaterialError as error:
        _check_silent(str(error), text)
    else:
        raw = base64.b64decode(text)
        assert AccessKey.generate(lambda count: raw[1 : count + 1]) == key
        assert AccessKey.generate(lambda count: raw[1 : count + 1]).text == text.strip()
        assert is_key_id(key.kid)
        assert text not in repr(key)
    assert not is_key_id(text) or base64.b64encode(base64.b64decode(text)).decode() == text
    try:
        master = decode_master_key(text)
    except KeyMaterialError as error:
        _check_silent(str(error), text)
    else:
        assert master
        assert base64.b64decode(text + "===") == master
    _public_jwk(data)


def _public_jwk(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        public = load_public_jwk(value)
    except KeyMaterialError as error:
        assert str(error).isprintable()
        return
    assert len(public.public_key) == 32
    assert key_id(public.public_key)
    assert public.kid == value["kid"]
    secret = str(value.get("d", ""))
    assert len(secret) < 16 or secret in (public.x, public.kid) or secret not in repr(public)
