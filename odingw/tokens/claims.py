"""Client tokens: their claims, and whether a token is good (wire reference, section 2)."""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from odingw.documents import lone_surrogate
from odingw.errors import NOT_JSON, TokenError, TokenFault
from odingw.tokens.jws import ALGORITHMS, check_algorithms, check_signature, parse

STRICT_LEEWAY: Final = 60
"""How many seconds two clocks may differ before a larger leeway counts as a relaxed rule."""

MAX_ROOMS: Final = 64
"""How many rooms ``rid`` may name: each is looked up, for one place in the last of them."""

_LARGEST: Final = 2**53 - 1

_RANGE: Final = msgspec.Meta(ge=-_LARGEST, le=_LARGEST)

UnixSeconds: TypeAlias = Annotated[int, _RANGE] | Annotated[float, _RANGE]
"""A time that every JSON implementation reads as the same integer (RFC 8259, section 6).

JSON has one type of numbers: ``1700000000.0`` is an integer, written by a careless signer.
"""

Names: TypeAlias = str | tuple[str, ...]
"""One name or several; which of the two is kept, since some are passed on as they came."""


class Internal(msgspec.Struct, frozen=True, gc=False):
    """The claim ``internal``.

    Attributes:
        server: address of the one server to place a new room on.
    """

    server: str | UnsetType = UNSET


class Claims(msgspec.Struct, frozen=True, gc=False):
    """The claims of a client token; ``UNSET`` where the token has none.

    Attributes:
        rid: the room's name, or several.
        uid: the user's id, which may be empty.
        sub: the methods that the token may call.
        aud: whom the token is meant for.
        exp: when the token ends, in unix seconds.
        nbf: when the token begins, in unix seconds.
        internal: wishes of the caller about placement.
        adr: a server's address.
        tgs: tags.
        ups: upstream.
        cid: the customer, in tokens that a server signed.
        nsp: the namespace, in tokens that a server signed.
    """

    rid: Names | UnsetType = UNSET
    uid: str | UnsetType = UNSET
    sub: Names | UnsetType = UNSET
    aud: Names | UnsetType = UNSET
    exp: UnixSeconds | UnsetType = UNSET
    nbf: UnixSeconds | UnsetType = UNSET
    internal: Internal | UnsetType = UNSET
    adr: str | UnsetType = UNSET
    tgs: Names | UnsetType = UNSET
    ups: str | UnsetType = UNSET
    cid: str | UnsetType = UNSET
    nsp: str | UnsetType = UNSET


class Policy(msgspec.Struct, frozen=True):
    """Which tokens are good.

    Attributes:
        leeway: how many seconds the clocks of signer and verifier may differ.
        require_expiry: refuse a token without ``exp``, which would be good for ever.
        audience: what ``aud`` must name, where a token has it.
        algorithms: the allow-list for ``alg``; ``ValueError`` if one of them is not supported.
    """

    leeway: int = STRICT_LEEWAY
    require_expiry: bool = True
    audience: str = "gateway"
    algorithms: tuple[str, ...] = ALGORITHMS

    def __post_init__(self) -> None:
        check_algorithms(self.algorithms)


class VerifyingKey(Protocol):
    """What a caller's key must have, whatever else the caller keeps with it."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key: 32 raw bytes."""


K = TypeVar("K", bound=VerifyingKey)


class Verified(msgspec.Struct, Generic[K], frozen=True):
    """A good token.

    Attributes:
        key: what ``find_key`` returned for the token's ``kid``.
        claims: the claims, ``rid`` and ``uid`` among them.
        relaxed: which strict rules the token breaks and the policy does not insist on:
            ``leeway``, ``require_expiry``.
    """

    key: K
    claims: Claims
    relaxed: tuple[str, ...]


def decode_claims(payload: bytes) -> Claims:
    """Read claims from JSON; those that are not known are ignored.

    Raises:
        TokenError: ``CLAIMS``; the message names the claim and never shows a value.
    """
    try:
        # As text: what is skipped must be UTF-8 as well (RFC 7519, section 7.2).
        claims = _claims.decode(payload.decode())
    except NOT_JSON:
        half = str(lone_surrogate(payload) or "")
        raise TokenError(TokenFault.CLAIMS, _what_is_wrong(payload), half) from None
    for name, time in (("exp", claims.exp), ("nbf", claims.nbf)):
        if type(time) is float and not time.is_integer():
            raise TokenError(TokenFault.CLAIMS, f"token claim {name} must be {_TIME}")
    return claims


def verify(
    token: str | bytes, find_key: Callable[[str], K | None], *, now: float, policy: Policy
) -> Verified[K]:
    """Decide whether a token is good.

    Args:
        token: a compact JWS.
        find_key: returns the key with an id, or None.
        now: unix seconds.
        policy: which tokens are good.

    Raises:
        TokenError: the token is refused; the first of these that does not hold: the form, the
            key, the signature, the types of the claims, ``aud``, ``exp``, ``nbf``, that
            ``rid`` and ``uid`` are there, and ``rid`` names not too many rooms.
    """
    jws = parse(token, policy.algorithms)
    key = find_key(jws.header.kid)
    if key is None:
        raise TokenError(TokenFault.UNKNOWN_KEY, "not authorized")
    if not check_signature(key.public_key, jws):
        raise TokenError(TokenFault.SIGNATURE, "invalid signature in token")
    claims = decode_claims(jws.payload)
    return Verified(key, claims, check_claims(claims, now=now, policy=policy))


def check_claims(claims: Claims, *, now: float, policy: Policy) -> tuple[str, ...]:
    """Check what a token claims, whoever signed it; ``verify`` does this last.

    Args:
        claims: the claims. Without ``verify``, anybody may have made them up.
        now: unix seconds.
        policy: which tokens are good.

    Returns:
        The strict rules that the claims break and the policy does not insist on, as in
        ``Verified``.

    Raises:
        TokenError: the first of these that does not hold: ``aud``, ``exp``, ``nbf``, that
            ``rid`` and ``uid`` are there, and ``rid`` names not too many rooms.
    """
    audience = claims.aud
    if isinstance(audience, str):
        audience = (audience,)
    if audience is not UNSET and policy.audience not in audience:
        raise TokenError(TokenFault.AUDIENCE, "token audience does not match")
    relaxed = _check_times(claims, now, policy)
    if claims.rid is UNSET or claims.uid is UNSET:
        missing = [name for name in ("rid", "uid") if getattr(claims, name) is UNSET]
        raise TokenError(
            TokenFault.CLAIMS,
            "missing required claims in token",
            f"the token has no claim {' and no claim '.join(missing)}",
        )
    if not isinstance(claims.rid, str) and len(claims.rid) > MAX_ROOMS:
        raise TokenError(TokenFault.CLAIMS, f"rid names more than {MAX_ROOMS} rooms")
    return relaxed


def no_expiry() -> TokenError:
    """Return the error for a token that would be good for ever."""
    detail = "the token has no claim exp: when it ends, in unix seconds"
    return TokenError(TokenFault.EXPIRED, "token has no expiry", detail)


def _check_times(claims: Claims, now: float, policy: Policy) -> tuple[str, ...]:
    """Check ``exp`` and ``nbf``; return the relaxed rules."""
    off = 0.0
    relaxed: tuple[str, ...] = ()
    if claims.exp is not UNSET:
        off = now - claims.exp
        if off > policy.leeway:
            raise TokenError(TokenFault.EXPIRED, "token has expired")
    elif policy.require_expiry:
        raise no_expiry()
    else:
        relaxed = ("require_expiry",)
    if claims.nbf is not UNSET:
        early = claims.nbf - now
        if early > policy.leeway:
            raise TokenError(TokenFault.NOT_YET_VALID, "token not yet valid")
        off = max(off, early)
    return ("leeway", *relaxed) if off > STRICT_LEEWAY else relaxed


def _what_is_wrong(payload: bytes) -> str:
    """One line about claims that could not be read."""
    members: dict[str, msgspec.Raw] = {}
    with suppress(*NOT_JSON):
        members = _members.decode(payload)
    for field in msgspec.structs.fields(Claims):
        if field.name in members:
            try:
                msgspec.json.decode(members[field.name], type=field.type)
            except NOT_JSON:
                return f"token claim {field.name} must be {_WANTED[field.name]}"
    return "token claims are not a JSON object"


_NAMES: Final = "a string or an array of strings"
_TIME: Final = "an integer of at most 53 bits"
_WANTED: Final = {
    "rid": _NAMES,
    "uid": "a string",
    "sub": _NAMES,
    "aud": _NAMES,
    "exp": _TIME,
    "nbf": _TIME,
    "internal": "an object whose server is a string",
    "adr": "a string",
    "tgs": _NAMES,
    "ups": "a string",
    "cid": "a string",
    "nsp": "a string",
}
_claims: Final = msgspec.json.Decoder(Claims)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
