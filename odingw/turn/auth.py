"""Who may have TURN credentials: JWTs and what they must say (RFC 7515, RFC 7519, RFC 8725).

The keys are those of the configuration and of JWK sets, and nothing in a token adds to them: the
header's ``jwk``, ``jku``, ``x5u`` and ``x5c`` are not read. A token that names a key id is tried
with the keys of that id and those without any; one that names none, with all.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import Any, Final, Literal, NoReturn, Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from twisted.internet.defer import Deferred

from odingw.documents import lone_surrogate, read_json
from odingw.errors import NOT_JSON, TokenError, TokenFault
from odingw.escapes import in_text
from odingw.tokens import Policy, base64url
from odingw.tokens import VerifyingKey as CustomerKey
from odingw.tokens import verify as verify_access_token
from odingw.tokens.claims import no_expiry
from odingw.tokens.jws import CACHED_HEADER_LENGTH, CACHED_HEADERS
from odingw.turn.claims import Claims, scopes_of
from odingw.turn.keys import ALGORITHMS, VerifyingKey, static_key
from odingw.turn.settings import TurnSettings

MAX_CACHED: Final = 10_000
"""How many verdicts are kept."""

CACHE_SECONDS: Final = 300
"""How long one is kept, at most."""

MAX_TRIES: Final = 32
"""How many keys of JWK sets one token is tried with.

Where a set has several keys, tokens say which (OpenID Connect Core, section 10.1), so that this and
:data:`MAX_SECONDS` stop only those who want to keep the gateway busy.
"""

MAX_SECONDS: Final = 0.005
"""Processor time that trying them may take: 32 keys of most kinds, but 5 of the slowest."""

ACCESS_SUBJECT: Final = "turn"
"""What ``sub`` of a customer's token must name."""

ACCESS_AUDIENCE: Final = "gateway"
"""What ``aud`` of a customer's token must name, where it has one: whoever serves the rooms."""

_LARGEST: Final = 2**53 - 1
_SHOWN: Final = 80


class KeySource(Protocol):
    """A set of keys that may change; ``odingw.turn.jwks.JwkSet`` is one."""

    @property
    def keys(self) -> tuple[VerifyingKey, ...]:
        """The keys that are good now; another tuple when they have changed."""

    def lookup(self) -> Deferred[float] | None:
        """Ask for keys that may be new.

        Returns:
            None: the keys will not change now. Else, fires with the seconds that it took.
        """


class TurnAuthenticator:
    """Turns tokens into claims.

    A customer's token, if ``settings.access_keys`` lets it in, has claims of its own kind: ``sub``
    must name ``turn``, and ``settings.issuer``, ``audience`` and ``required_scopes`` do not count.

    Args:
        settings: which tokens are good; new settings need a new authenticator.
        jwk_sets: the sets of ``settings.jwk_urls``.
        customer_key: finds a customer's access key by its id, for ``settings.access_keys``. It
            must not find the keys of servers.

    Raises:
        KeyMaterialError: a configured public key cannot be used.
    """

    def __init__(
        self,
        settings: TurnSettings,
        jwk_sets: Sequence[KeySource] = (),
        customer_key: Callable[[str], CustomerKey | None] | None = None,
    ) -> None:
        self._settings = settings
        self._static = [static_key(text, "configuration") for text in settings.public_keys]
        self._static_by_algorithm = {
            algorithm: [key for key in self._static if algorithm in key.algorithms]
            for algorithm in ALGORITHMS
        }
        self._sets = tuple(jwk_sets)
        self._customer_key = customer_key if settings.access_keys else None
        self._access_policy = Policy(leeway=settings.leeway, audience=ACCESS_AUDIENCE)
        self._keys: list[tuple[VerifyingKey, ...]] = []
        self._verdicts: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def keys_changed(self) -> None:
        """Forget all verdicts: a customer's key was removed.

        A change in a JWK set is noticed without being told.
        """
        self._verdicts.clear()

    def authenticate(self, token: str, now: float) -> Claims | Deferred[Claims]:
        """Return what a good token claims.

        Args:
            token: a compact JWT; the caller bounds its length.
            now: unix seconds, wall clock.

        Returns:
            The claims; a Deferred of them if a JWK set must be fetched first, which may be
            cancelled.

        Raises:
            TokenError: the token is refused; so does the Deferred fail.
        """
        raw = _ascii(token)
        if self._sets:
            self._notice_changes()
        digest = sha256(raw).digest()
        verdict = self._verdicts.get(digest)
        if verdict is not None:
            payload, until = verdict
            if now < until:
                return _decoded(payload)
            del self._verdicts[digest]
        parsed = _parse(raw, digest)
        try:
            return self._verified(parsed, now)
        except TokenError as refusal:
            if refusal.fault not in _FAULTS_OF_KEYS:
                raise
            lookups = self._lookups(parsed.kid)
            if not lookups:
                raise
        return self._verified_later(parsed, now, lookups)

    def _notice_changes(self) -> None:
        keys = [one.keys for one in self._sets]
        if keys != self._keys:
            self._keys = keys
            self._verdicts.clear()

    def _lookups(self, kid: str | None) -> list[Deferred[float]]:
        """Ask the sets that may get the key of a token.

        An issuer that was set up anew has other keys under the ids of its old ones.
        """
        named = [one for one in self._sets if kid and any(key.kid == kid for key in one.keys)]
        asked = (one.lookup() for one in named or self._sets)
        return [lookup for lookup in asked if lookup is not None]

    def _verified_later(
        self, token: "_Token", now: float, lookups: list[Deferred[float]]
    ) -> Deferred[Claims]:
        """Verify again when each of the lookups has ended, until one has brought the key."""
        pending = len(lookups)
        outcome: Deferred[Claims] = Deferred()

        def again(waited: float) -> None:
            nonlocal pending
            pending -= 1
            if outcome.called:
                return
            self._notice_changes()
            try:
                claims = self._verified(token, now + waited)
            except Exception:
                if not pending:
                    outcome.errback()
            else:
                outcome.callback(claims)

        for lookup in lookups:
            lookup.addCallback(again)
        return outcome

    def _verified(self, token: "_Token", now: float) -> Claims:
        """Verify a token with the keys there are.

        Raises:
            TokenError: it is refused.
        """
        refusal = self._refusal(token)
        if refusal is None:
            claims = _decoded(token.payload)
            expiry = check_claims(claims, self._settings, now)
        elif self._customer_key and token.kid is not None and self._customer_key(token.kid):
            expiry = self._check_access_token(token, self._customer_key, now)
            claims = _decoded(token.payload)
        else:
            raise refusal
        until = min(expiry, now + CACHE_SECONDS)
        if now < until:
            self._verdicts[token.digest] = token.payload, until
            if len(self._verdicts) > MAX_CACHED:
                self._verdicts.popitem(last=False)
        return claims

    def _refusal(self, token: "_Token") -> TokenError | None:
        """Say why no configured key verifies a token; None: one does."""
        named = [
            key
            for keys in self._keys
            for key in keys
            if token.kid is None or key.kid is None or key.kid == token.kid
        ]
        fitting = _affordable(key for key in named if token.alg in key.algorithms)
        fitting += self._static_by_algorithm[token.alg]
        for key in fitting:
            if key.verify(token.alg, token.signing_input, token.signature):
                return None
        if fitting:
            return TokenError(TokenFault.SIGNATURE, "invalid signature in token")
        if named or (self._static and not self._sets):
            return TokenError(TokenFault.ALGORITHM, "token algorithm does not fit its key")
        return TokenError(TokenFault.UNKNOWN_KEY, "not authorized", _no_key(token.kid))

    def _check_access_token(
        self, token: "_Token", find: Callable[[str], CustomerKey | None], now: float
    ) -> float:
        """Check a token that a customer's access key signed; return its expiry."""
        verified = verify_access_token(token.text, find, now=now, policy=self._access_policy)
        subject = verified.claims.sub or ()
        names = (subject,) if isinstance(subject, str) else subject
        if ACCESS_SUBJECT not in (name.lower() for name in names):
            raise TokenError(TokenFault.CLAIMS, f"token claim sub does not name {ACCESS_SUBJECT}")
        return verified.claims.exp or 0


def _no_key(kid: str | None) -> str:
    if kid is None:
        return "the token names no kid, and there is no key to try it with"
    shown = kid if len(kid) <= _SHOWN else f"{kid[: _SHOWN - 1]}…"
    return f"no configured key has the kid {in_text(shown)}"


def _affordable(keys: Iterable[VerifyingKey]) -> list[VerifyingKey]:
    """Return the first keys that a token may be tried with."""
    found: list[VerifyingKey] = []
    left = MAX_SECONDS
    for key in islice(keys, MAX_TRIES):
        left -= key.cost
        if left < 0:
            break
        found.append(key)
    return found


def check_claims(claims: Claims, settings: TurnSettings, now: float) -> float:
    """Check what a token claims that a configured key has signed.

    A token without ``exp`` would be good for ever, and is refused. ``aud`` and ``iss`` count only
    where the settings say what they must be.

    Args:
        claims: the claims.
        settings: which tokens are good.
        now: unix seconds.

    Returns:
        ``exp``, in unix seconds.

    Raises:
        TokenError: the first of these that does not hold: the types of ``exp`` and ``nbf``,
            ``iss``, ``aud``, ``exp``, ``nbf``, and that one of the required scopes is there.
    """
    expiry, begin = _time(claims, "exp"), _time(claims, "nbf")
    if settings.issuer is not None and claims.get("iss") != settings.issuer:
        raise TokenError(TokenFault.CLAIMS, "token issuer does not match")
    if settings.audience is not None:
        audience = claims.get("aud")
        if settings.audience not in (audience if isinstance(audience, list) else (audience,)):
            raise TokenError(TokenFault.AUDIENCE, "token audience does not match")
    if expiry is None:
        raise no_expiry()
    if now >= expiry + settings.leeway:
        raise TokenError(TokenFault.EXPIRED, "token has expired")
    if begin is not None and now < begin - settings.leeway:
        raise TokenError(TokenFault.NOT_YET_VALID, "token not yet valid")
    if settings.required_scopes and scopes_of(claims, settings.scope_claims).isdisjoint(
        settings.required_scopes
    ):
        raise TokenError(TokenFault.CLAIMS, "token has none of the required scopes")
    return expiry


def _time(claims: Claims, name: str) -> float | None:
    if name not in claims:
        return None
    value: object = claims[name]
    # A bool is an int to Python.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return value
    raise TokenError(TokenFault.CLAIMS, f"token claim {name} must be a number of at most 53 bits")


class _Header(Struct, frozen=True, gc=False):
    """The members of a JOSE header that matter here (RFC 7515, section 4.1)."""

    alg: str
    kid: str | tuple[()] | None = None
    crit: Raw | UnsetType = UNSET
    b64: bool | Literal[""] | tuple[()] | None = None


class _Token(Struct, frozen=True, gc=False):
    """A token taken apart; its signature is not checked yet."""

    text: bytes
    digest: bytes
    alg: str
    kid: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


def _parse(text: bytes, digest: bytes) -> _Token:
    """Take a compact JWS apart.

    Raises:
        TokenError: ``MALFORMED``, or ``ALGORITHM`` where no key verifies what ``alg`` names.
    """
    segments = text.split(b".")
    if len(segments) != 3:
        _malformed("token must have three segments")
    first, second, third = segments
    header = (_header if len(first) > CACHED_HEADER_LENGTH else _cached_header)(first)
    kid = header.kid or None
    try:
        payload, signature = base64url.decode(second), base64url.decode(third)
    except ValueError:
        _malformed("token is not base64url")
    signing_input = text[: len(first) + 1 + len(second)]
    return _Token(text, digest, header.alg, kid, payload, signing_input, signature)


def _header(segment: bytes) -> _Header:
    text = b""
    try:
        text = base64url.decode(segment)
        # As text: what is skipped must be UTF-8 as well (RFC 7515, section 5.2).
        header = _header_decoder.decode(text.decode())
    except (ValueError, *NOT_JSON):
        wanted = "token header must be a JSON object in base64url with texts as alg and kid"
        _malformed(wanted, str(lone_surrogate(text) or ""))
    if header.crit is not UNSET or header.b64 is False:
        _malformed("token header names critical extensions")
    if header.alg not in ALGORITHMS:
        raise TokenError(TokenFault.ALGORITHM, "token algorithm is not allowed")
    return header


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        _malformed("token is not ASCII")


def _decoded(payload: bytes) -> Claims:
    try:
        text = payload.decode()
        try:
            return _claims.decode(text)
        except msgspec.ValidationError:
            # An object all the same, with a number that no double holds; or none.
            document = read_json(payload)
    except NOT_JSON:
        half = str(lone_surrogate(payload) or "")
        raise TokenError(TokenFault.CLAIMS, "token claims are not a JSON object", half) from None
    if not isinstance(document, dict):
        raise TokenError(TokenFault.CLAIMS, "token claims are not a JSON object")
    return document


def _malformed(message: str, detail: str = "") -> NoReturn:
    raise TokenError(TokenFault.MALFORMED, message, detail) from None


_FAULTS_OF_KEYS: Final = (TokenFault.UNKNOWN_KEY, TokenFault.ALGORITHM, TokenFault.SIGNATURE)
_header_decoder: Final = msgspec.json.Decoder(_Header)
_cached_header: Final = lru_cache(CACHED_HEADERS)(_header)
_claims: Final = msgspec.json.Decoder(dict[str, Any])
