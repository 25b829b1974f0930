"""Keys that verify JWTs, and what each may verify (RFC 7517, RFC 7518, RFC 8037).

A key's type decides which algorithms it verifies, never the token: a token cannot make a public
RSA key into the secret of an HMAC.

======================  ========================================
RSA, 2048 to 8192 bits  RS256, RS384, RS512, PS256, PS384, PS512
EC, P-256               ES256
EC, P-384               ES384
OKP, Ed25519            EdDSA, Ed25519 (RFC 9864)
======================  ========================================
"""

import re
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_der_public_key
from jwt.algorithms import Algorithm, ECAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError, structs
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from odingw.documents import in_ascii, is_absent_json, lone_surrogate, unmarked
from odingw.errors import NOT_JSON, KeyMaterialError
from odingw.tokens import base64url
from odingw.tokens.jwk_use import PRIVATE, OtherUseError, check_use
from odingw.tokens.keys import KEY_BYTES, SIGNATURE_BYTES, other_form

MAX_JWKS: Final = 100
"""How many keys of a JWK set are read."""

LONGEST_KID: Final = 1024
"""Characters of a key's id; the header of a token has to hold it."""

_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
# Verifying takes a step for each bit of it. Issuers have 65537 or 3; BoringSSL and Go's crypto/rsa
# take no more than 33 and 31 bits either.
_MAX_EXPONENT_BITS: Final = 32
_SHOWN: Final = 80

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ED25519: Final = frozenset({"EdDSA", "Ed25519"})
_CURVES: Final[dict[str, tuple[EllipticCurve, frozenset[str]]]] = {
    "P-256": (SECP256R1(), frozenset({"ES256"})),
    "P-384": (SECP384R1(), frozenset({"ES384"})),
}

_VERIFIERS: Final[dict[str, Algorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
}

ALGORITHMS: Final = _VERIFIERS.keys() | _ED25519
"""All that any key verifies."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | bytes
"""A key in the form that verifies fastest; bytes: the 32 of an Ed25519 key."""


class VerifyingKey(Struct, frozen=True):
    """A public key.

    Attributes:
        kid: its id in the JWK set that it comes from; None: it has none.
        algorithms: what it verifies, never more than its type allows.
        key: the key.
        source: where it comes from, for people.
        cost: about how many seconds of processor time it takes to verify with it.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey
    source: str
    cost: float

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whether the key's holder signed a message with an algorithm.

        Args:
            algorithm: as the token's ``alg`` names it; one that is not the key's verifies nothing.
            message: what is signed.
            signature: of any length.
        """
        if algorithm not in self.algorithms:
            return False
        if not isinstance(self.key, bytes):
            return bool(_VERIFIERS[algorithm].verify(message, self.key, signature))
        # libsodium needs half the time of OpenSSL. It gets signature and message as one: the length
        # decides where the message begins.
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            crypto_sign_open(signature + message, self.key)
        except BadSignatureError:
            return False
        return True


def _verifying(
    kid: str | None, algorithms: frozenset[str], key: PublicKey, source: str
) -> VerifyingKey:
    return VerifyingKey(kid, algorithms, key, source, _cost(key))


def _cost(key: PublicKey) -> float:
    """Return what verifying takes, as measured; the slowest RSA key takes 0.9 ms."""
    if isinstance(key, bytes):
        return 60e-6
    if isinstance(key, EllipticCurvePublicKey):
        return 150e-6 if key.curve.name == SECP256R1.name else 850e-6
    exponent = key.public_numbers().e
    return (key.key_size / _MAX_RSA_BITS) ** 2 * (90e-6 + 26e-6 * exponent.bit_length())


def static_key(text: str, source: str) -> VerifyingKey:
    """Read a configured public key.

    Args:
        text: base64, padded or not, of a DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7);
            white space in it is ignored.
        source: where it stands, for people.

    Raises:
        KeyMaterialError: it cannot be used; the text says why.
    """
    try:
        der = base64url.decode_standard("".join(text.split()))
    except ValueError:
        _refuse(_instead("base64 expected, of a public key in DER", text))
    try:
        loaded = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        _refuse(_instead("base64 of a public key in DER (SubjectPublicKeyInfo) expected", text))
    if isinstance(loaded, RSAPublicKey):
        return _verifying(None, _RSA, _checked_rsa(loaded), source)
    if isinstance(loaded, EllipticCurvePublicKey):
        for curve, algorithms in _CURVES.values():
            if loaded.curve.name == curve.name:
                return _verifying(None, algorithms, loaded, source)
    if isinstance(loaded, Ed25519PublicKey):
        return _verifying(None, _ED25519, _checked_ed25519(loaded.public_bytes_raw()), source)
    raise KeyMaterialError(_WANTED_TYPE)


_Text: TypeAlias = str | tuple[()] | None
"""A member that is a text, or absent; .NET writes null, and empty lists, for what a key lacks."""


class _Use(Struct):
    """The members of a JWK that say what it is for, and those of a key pair, whatever they hold."""

    kty: Any = None
    alg: Any = None
    use: Any = None
    key_ops: Any = None
    crv: Any = None
    d: Raw | UnsetType = UNSET
    p: Raw | UnsetType = UNSET
    q: Raw | UnsetType = UNSET
    dp: Raw | UnsetType = UNSET
    dq: Raw | UnsetType = UNSET
    qi: Raw | UnsetType = UNSET
    oth: Raw | UnsetType = UNSET


class _Jwk(Struct):
    """The members of a JWK that matter here; others are ignored, as RFC 7517 wants it."""

    kty: _Text = None
    kid: _Text = None
    alg: _Text = None
    use: _Text = None
    key_ops: tuple[_Text, ...] | Literal[""] | None = None
    crv: _Text = None
    n: _Text = None
    e: _Text = None
    x: _Text = None
    y: _Text = None


class _Named(Struct):
    kid: str


def jwk(document: bytes | Raw, source: str) -> VerifyingKey:
    """Read a public JWK; its ``alg``, ``use`` and ``key_ops`` narrow what it may verify.

    Args:
        document: JSON.
        source: where it stands, for people.

    Raises:
        KeyMaterialError: it cannot be used; the text says why.
    """
    try:
        _check_use(_use.decode(document))
        value = _one_jwk.decode(document)
    except ValidationError as error:
        _refuse(_wrong_type(error))
    except NOT_JSON:
        _refuse(str(lone_surrogate(bytes(document)) or _SHAPE))
    if not value.kty:
        _refuse(f"{_SHAPE}; its kty is absent")
    build = _TYPES.get(value.kty)
    if build is None:
        _refuse(_WANTED_TYPE)
    algorithms, key = build(value)
    if value.alg:
        algorithms &= _ED25519 if value.alg in _ED25519 else {value.alg}
        if not algorithms:
            _refuse("its alg is none that is accepted for a key of its type")
    kid = value.kid or None
    if kid is not None and len(kid) > LONGEST_KID:
        _refuse(f"its kid must have {LONGEST_KID} characters or less")
    return _verifying(kid, algorithms, key, source)


def _check_use(value: _Use) -> None:
    members: dict[str, object] = structs.asdict(value)
    for name in PRIVATE:
        member: Raw | UnsetType = getattr(value, name)
        # What is in it need not be read.
        members[name] = None if member is UNSET or is_absent_json(member) else "…"
    check_use(members)


def _wrong_type(error: ValidationError) -> str:
    """Name the member that msgspec found to be of another type."""
    found = _MEMBER.search(str(error))
    return f"{_SHAPE}; its {found[1]} is something else" if found else _SHAPE


class KeyList(Struct, frozen=True):
    """The keys of a JWK set that can be used.

    Attributes:
        keys: in the order of the set.
        problems: what was left out and why, a line each; that a key is for something else than
            signatures is none.
    """

    keys: tuple[VerifyingKey, ...]
    problems: tuple[str, ...]


# An array read as a struct: what is beyond its last field is skipped at once. A list would be built
# first and measured then; a megabyte of empty objects would stop the reactor for 30 ms.
_Jwks: Final = msgspec.defstruct(
    "_Jwks",
    [(f"key_{number}", Raw | UnsetType, UNSET) for number in range(1, MAX_JWKS + 2)],
    array_like=True,
)


def jwk_set(document: bytes, name: str) -> KeyList:
    """Read a JWK set (RFC 7517, section 5); a key that cannot be used is left out.

    Args:
        document: JSON, whatever was received.
        name: what the set is called, for people.

    Raises:
        KeyMaterialError: it is no JWK set.
    """
    keys: list[VerifyingKey] = []
    problems: list[str] = []
    for number, part in enumerate(_parts(document), 1):
        if number > MAX_JWKS:
            problems.append(f"the keys of {name} after the first {MAX_JWKS} are skipped")
            break
        try:
            keys.append(jwk(part, name))
        except OtherUseError:
            continue
        except KeyMaterialError as error:
            problems.append(f"key {number}{_shown_kid(part)} of {name} is skipped: {error}")
    return KeyList(tuple(keys), tuple(problems))


def _parts(document: bytes) -> list[Raw]:
    """Return the first keys of a JWK set, one more than are read.

    Raises:
        KeyMaterialError: it is no JWK set.
    """
    try:
        parts = structs.astuple(_set.decode(unmarked(document)).keys)
    except NOT_JSON:
        half = lone_surrogate(document)
        found = half and isinstance(half.document, dict) and half.document.get("keys")
        if not isinstance(found, list):
            raise KeyMaterialError(_no_set(document)) from None
        return in_ascii(found[: MAX_JWKS + 1])
    return [part for part in parts if part is not UNSET]


def _no_set(document: bytes) -> str:
    """Say what is there instead of a JWK set, as far as it is known."""
    text = "it is not a JSON object with a list of keys"
    if b'"jwks_uri"' in document:
        return f"{text}, but an OpenID configuration; name the URL that is its jwks_uri"
    # Beside their JWK sets, issuers serve certificates by key id, and PEM files.
    pem = other_form(document[:_LONGEST_PEM].decode("utf-8", "replace"))
    return f"{text}, but {pem.partition(';')[0]}; name the URL of the JWK set" if pem else text


def _rsa(value: _Jwk) -> tuple[frozenset[str], PublicKey]:
    modulus, exponent = (int.from_bytes(_decoded(text)) for text in (value.n, value.e))
    _check_size(modulus, exponent)
    return _RSA, _built(RSAPublicNumbers(exponent, modulus).public_key)


def _ec(value: _Jwk) -> tuple[frozenset[str], PublicKey]:
    if value.crv not in _CURVES:
        _refuse(f"crv must be one of {', '.join(_CURVES)} for an EC key")
    curve, algorithms = _CURVES[value.crv]
    x, y = (int.from_bytes(_decoded(text)) for text in (value.x, value.y))
    return algorithms, _built(EllipticCurvePublicNumbers(x, y, curve).public_key)


def _okp(value: _Jwk) -> tuple[frozenset[str], PublicKey]:
    if value.crv != "Ed25519":
        _refuse("crv must be Ed25519 for an OKP key")
    return _ED25519, _checked_ed25519(_decoded(value.x))


def _decoded(text: _Text) -> bytes:
    text = text or ""
    try:
        return base64url.decode_key(text)
    except ValueError:
        _refuse(_instead("its numbers must be in base64url", text).partition(";")[0])


def _instead(wanted: str, text: str) -> str:
    """Say what is wanted, and what a text is, as far as that is known."""
    other = other_form(text)
    return f"{wanted}, not {other}" if other else wanted


def _built(build: Callable[[], PublicKey]) -> PublicKey:
    try:
        return build()
    except ValueError:
        _refuse("its numbers make no key")


def _checked_rsa(key: RSAPublicKey) -> RSAPublicKey:
    numbers = key.public_numbers()
    _check_size(numbers.n, numbers.e)
    return key


def _check_size(modulus: int, exponent: int) -> None:
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        _refuse(f"an RSA key must have {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    if exponent.bit_length() > _MAX_EXPONENT_BITS:
        _refuse(f"the exponent of an RSA key must have {_MAX_EXPONENT_BITS} bits or less")
    if exponent < 3 or not exponent % 2 or not modulus % 2:
        _refuse("its numbers make no key")


def _checked_ed25519(key: bytes) -> bytes:
    if len(key) != KEY_BYTES or not crypto_core_ed25519_is_valid_point(key):
        _refuse("its numbers make no key")
    return key


def _shown_kid(part: Raw) -> str:
    """The id of a key that is broken otherwise."""
    try:
        kid: object = _named.decode(part).kid
    except NOT_JSON:
        half = lone_surrogate(bytes(part))
        kid = half.document.get("kid") if half and isinstance(half.document, dict) else None
    return f" ({kid[:_SHOWN]!r})" if isinstance(kid, str) else ""


def _refuse(message: str) -> NoReturn:
    raise KeyMaterialError(message)


_SHAPE: Final = (
    "a JSON object expected, with a text as kty, texts as kid, alg, use, crv, n, e, x and y, and a "
    "list of texts as key_ops, where it has them"
)
_MEMBER: Final = re.compile(r"at `\$\.(\w+)")
_LONGEST_PEM: Final = 8192
_WANTED_TYPE: Final = "it must be an RSA, EC (P-256, P-384) or Ed25519 key"
_TYPES: Final = {"RSA": _rsa, "EC": _ec, "OKP": _okp}
_named: Final = msgspec.json.Decoder(_Named)
_use: Final = msgspec.json.Decoder(_Use)
_one_jwk: Final = msgspec.json.Decoder(_Jwk)
_JwkSet: Final = msgspec.defstruct("_JwkSet", [("keys", _Jwks)])
_set: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_JwkSet)
