"""Compact JWS (RFC 7515): three segments to header, payload and signature, strictly."""

from collections.abc import Collection
from functools import lru_cache
from typing import Final, NoReturn

import msgspec
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from odingw.documents import lone_surrogate
from odingw.errors import NOT_JSON, KeyMaterialError, TokenError, TokenFault
from odingw.tokens import base64url
from odingw.tokens.keys import KEY_BYTES, SIGNATURE_BYTES

ALGORITHMS: Final = ("EdDSA", "Ed25519")
"""What this library can verify: two names of one algorithm (RFC 8037, section 3.1; RFC 9864)."""

# Headers of real tokens repeat and are short; nobody may fill the cache with long ones.
CACHED_HEADERS: Final = 1024
CACHED_HEADER_LENGTH: Final = 256


class Header(msgspec.Struct, frozen=True, gc=False):
    """What the header of a token says.

    Attributes:
        alg: the algorithm of the signature.
        kid: the id of the key that signed, as the token claims.
    """

    alg: str
    kid: str


class Jws(msgspec.Struct, frozen=True, gc=False):
    """A token taken apart; its signature is not checked yet.

    Attributes:
        header: the checked header.
        payload: the decoded second segment.
        signing_input: the bytes that are signed: the first two segments with the dot.
        signature: the decoded third segment, of any length.
    """

    header: Header
    payload: bytes
    signing_input: bytes
    signature: bytes


def check_algorithms(algorithms: Collection[str]) -> None:
    """Refuse an allow-list with an algorithm that this library does not know.

    Raises:
        ValueError: the message names the algorithm.
    """
    for name in algorithms:
        if name not in ALGORITHMS:
            raise ValueError(f"algorithm {name!r} is not supported, only {', '.join(ALGORITHMS)}")


def parse(token: str | bytes, algorithms: Collection[str] = ALGORITHMS) -> Jws:
    """Take a compact JWS apart.

    Args:
        token: three segments of base64url without padding, with dots between them.
        algorithms: the allow-list for ``alg``, of names in ``ALGORITHMS``.

    Raises:
        TokenError: ``MALFORMED``, or ``ALGORITHM`` where ``alg`` is not in the allow-list.
        ValueError: the allow-list has an algorithm that this library does not know.
    """
    if algorithms is not ALGORITHMS:
        check_algorithms(algorithms)
    try:
        raw = token if isinstance(token, bytes) else token.encode("ascii")
    except UnicodeEncodeError:
        raise TokenError(TokenFault.MALFORMED, "token is not ASCII") from None
    signing_input, _, signature = raw.rpartition(b".")
    first, dot, second = signing_input.partition(b".")
    if not dot or b"." in second:
        _malformed("token must have three segments")
    read = _header if len(first) > CACHED_HEADER_LENGTH else _cached_header
    header = read(first)
    if header.alg not in algorithms:
        raise TokenError(TokenFault.ALGORITHM, "token algorithm is not allowed")
    try:
        return Jws(header, base64url.decode(second), signing_input, base64url.decode(signature))
    except ValueError:
        raise TokenError(TokenFault.MALFORMED, "token is not base64url") from None


def check_signature(public_key: bytes, jws: Jws) -> bool:
    """Tell whether the holder of a key signed a token.

    Args:
        public_key: 32 raw bytes.
        jws: the token.

    Raises:
        KeyMaterialError: the key has another length.
    """
    if len(public_key) != KEY_BYTES:
        raise KeyMaterialError(f"public key: {KEY_BYTES} bytes expected, got {len(public_key)}")
    if len(jws.signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(jws.signature + jws.signing_input, public_key)
    except BadSignatureError:
        return False
    return True


def _header(segment: bytes) -> Header:
    text = b""
    try:
        text = base64url.decode(segment)
        # As text: what is skipped must be UTF-8 as well (RFC 7515, section 5.2).
        members = _members.decode(text.decode())
        if "crit" in members:
            _malformed("token header names critical extensions")
        alg, kid, crv = (
            None if name not in members else msgspec.json.decode(members[name])
            for name in ("alg", "kid", "crv")
        )
    except (ValueError, *NOT_JSON):
        raise TokenError(
            TokenFault.MALFORMED,
            "token header is not a JSON object in base64url",
            str(lone_surrogate(text) or ""),
        ) from None
    for name in ("alg", "kid"):
        if name not in members:
            _malformed(f"token header {name} is missing")
    if not isinstance(alg, str):
        _malformed("token header alg must be a string")
    if not isinstance(kid, str):
        _malformed("token header kid must be a string")
    if "crv" in members and crv != "Ed25519":
        _malformed('token header crv must be "Ed25519"')
    return Header(alg, kid)


def _malformed(message: str) -> NoReturn:
    raise TokenError(TokenFault.MALFORMED, message)


_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_cached_header: Final = lru_cache(CACHED_HEADERS)(_header)
