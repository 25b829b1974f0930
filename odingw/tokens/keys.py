"""Access keys, the Ed25519 keys in them, their ids, and their JWKs (wire reference, section 1)."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Final, Self

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from odingw.documents import is_absent, is_nothing, without_marks
from odingw.errors import KeyMaterialError
from odingw.tokens import base64url
from odingw.tokens.jwk_use import check_use
from odingw.tokens.other_forms import AS_DER, AS_X, pem_or_der

KEY_BYTES: Final = 32
"""Length of an Ed25519 public key, and of the seed of a secret one (RFC 8032)."""

SIGNATURE_BYTES: Final = 64
"""Length of an Ed25519 signature."""

_ALGORITHMS: Final = ("EdDSA", "Ed25519")
_ACCESS_KEY_VERSION: Final = 1
_ACCESS_KEY_BYTES: Final = 33


class KeyType(IntEnum):
    """Who a key belongs to: the first byte of its id."""

    CUSTOMER = 1
    """An access key of a customer."""

    DERIVED = 2
    """A server's key, which a gateway derives from its master key."""


def key_id(public_key: bytes, key_type: KeyType = KeyType.CUSTOMER) -> str:
    """Return the id of a key.

    Args:
        public_key: 32 raw bytes.
        key_type: who the key belongs to.

    Returns:
        12 characters of standard base64: the type, and the key's SHA-512 folded to 8 bytes by xor.

    Raises:
        KeyMaterialError: the key has another length.
    """
    if len(public_key) != KEY_BYTES:
        raise KeyMaterialError(f"public key: {KEY_BYTES} bytes expected, got {len(public_key)}")
    digest = hashlib.sha512(public_key).digest()
    folded = 0
    for start in range(0, len(digest), 8):
        folded ^= int.from_bytes(digest[start : start + 8], "big")
    return base64.b64encode(bytes([key_type]) + folded.to_bytes(8, "big")).decode()


def is_key_id(text: str) -> bool:
    """Tell whether a text has the form of a key id that is made from a key.

    A customer may name a key freely, so a ``kid`` for which this is False can still be in use.
    """
    return any(is_key_id_of(text, key_type) for key_type in KeyType)


def is_key_id_of(text: str, key_type: KeyType) -> bool:
    """Tell whether a text has the form of the id of a key of this type."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    # Padding that is not needed gets past the decoder.
    return len(raw) == 9 and raw[0] == key_type and not text.endswith("=")


class PublicJwk(msgspec.Struct, frozen=True, gc=False):
    """A public Ed25519 key as a JWK (RFC 8037); its JSON has these members in this order.

    Attributes:
        kid: the key's id, not empty.
        kty: ``OKP``.
        crv: ``Ed25519``.
        x: the public key in base64url.
    """

    kid: str
    kty: str
    crv: str
    x: str

    @property
    def public_key(self) -> bytes:
        """The public key: 32 raw bytes."""
        return base64url.decode(self.x.encode())


class PrivateJwk(msgspec.Struct, frozen=True, gc=False):
    """A secret Ed25519 key as a JWK (RFC 8037); its JSON has these members in this order.

    Attributes:
        kid: the key's id.
        kty: ``OKP``.
        crv: ``Ed25519``.
        x: the public key in base64url.
        d: the seed in base64url: the secret.
    """

    kid: str
    kty: str
    crv: str
    x: str
    d: str

    def __repr__(self) -> str:
        return f"PrivateJwk(kid={self.kid!r}, kty={self.kty!r}, crv={self.crv!r}, x={self.x!r})"


def load_public_jwk(value: object) -> PublicJwk:
    """Check an untrusted public JWK, as it comes from JSON or TOML.

    Members that are not needed are ignored. The ``kid`` may be any text: customers may name their
    keys freely.

    Args:
        value: a mapping with ``kid``, ``kty``, ``crv`` and ``x``.

    Raises:
        KeyMaterialError: with one line that names the member that is wrong.
    """
    if not isinstance(value, Mapping):
        wanted = "public key: a JWK expected, a table with kid, kty, crv and x"
        raise KeyMaterialError(_instead(wanted, value, AS_X))
    kid, x = value.get("kid"), value.get("x")
    if not isinstance(kid, str) or not kid:
        raise KeyMaterialError("public key: kid must be a text that is not empty")
    if value.get("kty") != "OKP":
        raise KeyMaterialError('public key: kty must be "OKP"')
    if value.get("crv") != "Ed25519":
        raise KeyMaterialError('public key: crv must be "Ed25519"')
    _check_members(value)
    if not isinstance(x, str) or (key := _key(x)) is None:
        raise KeyMaterialError(_instead("public key: x must be 32 bytes in base64url", x, AS_X))
    return PublicJwk(kid, "OKP", "Ed25519", base64url.encode(key).decode())


def _check_members(jwk: Mapping[str, object]) -> None:
    """Refuse a private key, or one that is for something else than EdDSA."""
    for name in ("use", "alg"):
        if not (is_absent(jwk.get(name)) or isinstance(jwk[name], str)):
            raise KeyMaterialError(f"public key: {name} must be a text")
    operations = jwk.get("key_ops")
    if not (is_absent(operations) or _are_texts(operations)):
        raise KeyMaterialError("public key: key_ops must be a list of texts")
    try:
        check_use(jwk)
    except KeyMaterialError as error:
        raise KeyMaterialError(f"public key: {error}") from None
    if not (is_absent(jwk.get("alg")) or jwk["alg"] in _ALGORITHMS):
        raise KeyMaterialError(f"public key: alg must be {' or '.join(_ALGORITHMS)}, or absent")


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        is_nothing(item) or isinstance(item, str) for item in value
    )


def other_form(text: str, ending: str = AS_DER) -> str:
    """Say what a text is that stands where a public key is wanted, and how to make one of it.

    Args:
        text: what is written there.
        ending: the end of the command: ``AS_DER`` or ``AS_X``.

    Returns:
        One line without anything of the text; empty: it is nothing that is known.
    """
    with suppress(KeyMaterialError):
        AccessKey(without_marks(text))
        return "an access key, which is a secret; show its public half: odingw access-key show"
    return pem_or_der(text, ending)


def _instead(wanted: str, value: object, ending: str) -> str:
    other = other_form(value, ending) if isinstance(value, str) else ""
    return f"{wanted}, not {other}" if other else wanted


def _key(x: str) -> bytes | None:
    with suppress(ValueError):
        key = base64url.decode_key(x)
        if len(key) == KEY_BYTES:
            return key
    return None


class SecretKey:
    """An Ed25519 key that signs (RFC 8032).

    Args:
        seed: 32 bytes, the secret.
        key_type: who the key belongs to.

    Attributes:
        seed: the secret that was given.
        key_type: who the key belongs to.
        public_key: 32 raw bytes.
        kid: the key's id.

    Raises:
        KeyMaterialError: the seed has another length.
    """

    __slots__ = ("_jws_header", "_sodium_key", "key_type", "kid", "public_key", "seed")

    def __init__(self, seed: bytes, key_type: KeyType = KeyType.CUSTOMER) -> None:
        if len(seed) != KEY_BYTES:
            raise KeyMaterialError(f"secret key: {KEY_BYTES} bytes expected, got {len(seed)}")
        public_key, self._sodium_key = crypto_sign_seed_keypair(seed)
        self.seed: Final = seed
        self.key_type: Final = key_type
        self.public_key: Final[bytes] = public_key
        self.kid: Final = key_id(public_key, key_type)
        header = msgspec.json.encode({"alg": "EdDSA", "kid": self.kid})
        self._jws_header = base64url.encode(header) + b"."

    def __repr__(self) -> str:
        return f"SecretKey(kid={self.kid!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return hmac.compare_digest(self.seed, other.seed) and self.key_type == other.key_type

    def __hash__(self) -> int:
        return hash(self.kid)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: 64 bytes."""
        return crypto_sign(message, self._sodium_key)[:SIGNATURE_BYTES]

    def sign_jwt(self, payload: bytes) -> str:
        """Return a compact JWS (RFC 7515, section 7.1) with the header ``alg``, ``kid``.

        Args:
            payload: the claims as JSON.
        """
        signing_input = self._jws_header + base64url.encode(payload)
        signature = crypto_sign(signing_input, self._sodium_key)[:SIGNATURE_BYTES]
        return (signing_input + b"." + base64url.encode(signature)).decode()

    def public_jwk(self) -> PublicJwk:
        """Return the public half, which others may know."""
        return PublicJwk(self.kid, "OKP", "Ed25519", base64url.encode(self.public_key).decode())

    def private_jwk(self) -> PrivateJwk:
        """Return the whole key, secret included."""
        return PrivateJwk(
            self.kid,
            "OKP",
            "Ed25519",
            base64url.encode(self.public_key).decode(),
            base64url.encode(self.seed).decode(),
        )


class AccessKey:
    """A customer's access key: a secret key with a version and a checksum around it.

    Args:
        text: 44 characters of standard base64; white space around them does not count.

    Attributes:
        text: the secret that was given, without white space.
        secret_key: the key in it.

    Raises:
        KeyMaterialError: the text is no access key; the message says why, without the text.
    """

    __slots__ = ("secret_key", "text")

    def __init__(self, text: str) -> None:
        text = text.strip()
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raise KeyMaterialError("access key: not base64") from None
        if len(raw) == _ACCESS_KEY_BYTES and text.endswith("="):
            # Padding that is not needed gets past the decoder.
            raise KeyMaterialError("access key: not base64")
        if len(raw) != _ACCESS_KEY_BYTES:
            wanted = f"{_ACCESS_KEY_BYTES} bytes in base64 expected"
            raise KeyMaterialError(f"access key: {wanted}, got {len(raw)}")
        if raw[0] != _ACCESS_KEY_VERSION:
            raise KeyMaterialError(f"access key: version {raw[0]} is not supported")
        if raw[-1] != _crc8(raw[1:-1]):
            raise KeyMaterialError("access key: wrong checksum, it was not copied correctly")
        self.text: Final = text
        self.secret_key: Final = SecretKey(raw[1:])

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Self:
        """Make a new access key.

        Args:
            random_bytes: returns as many cryptographically random bytes as it is asked for, as
                ``secrets.token_bytes`` does.
        """
        body = random_bytes(_ACCESS_KEY_BYTES - 2)
        raw = bytes([_ACCESS_KEY_VERSION]) + body + bytes([_crc8(body)])
        return cls(base64.b64encode(raw).decode())

    @property
    def kid(self) -> str:
        """The key's id."""
        return self.secret_key.kid

    def public_jwk(self) -> PublicJwk:
        """Return the public half, which the gateway's configuration names."""
        return self.secret_key.public_jwk()

    def __repr__(self) -> str:
        return f"AccessKey(kid={self.kid!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AccessKey):
            return NotImplemented
        return self.secret_key == other.secret_key

    def __hash__(self) -> int:
        return hash(self.secret_key)


def _crc8(data: bytes) -> int:
    """CRC-8 with polynomial 0x31 and start 0xFF, not reflected, no final xor."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ (0x131 if crc & 0x80 else 0)
    return crc
