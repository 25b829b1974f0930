"""The TURN settings in force, checked in one place for both files that they can be written in."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_type_hints
from urllib.parse import urlsplit

import msgspec

from odingw.config import Turn
from odingw.config.errors import config_error, convert
from odingw.config.parts import is_loopback
from odingw.config.turn import BESIDE_FILE
from odingw.config.types import Text, key_text
from odingw.documents import NotJsonError, half_in, is_absent, is_nothing, read_document, unseen
from odingw.errors import ConfigError
from odingw.turn.keys import static_key
from odingw.turn.origins import ANY_ORIGIN, check_origin
from odingw.turn.uris import Scheme, parse_uri

MAX_USERNAME: Final = 508
"""Bytes of a USERNAME attribute: fewer than 509 (RFC 8489, section 14.3).

With more, Chromium gathers no relay, or throws.
"""

_FILE: Final = re.compile(r"file:|[./~]|[^:]+\.(json|jwks?)\Z", re.IGNORECASE)

SHORT_SECRET: Final = 16
"""Characters; a shorter secret gets a warning."""

_MEMBERS: Final = {
    "secretKey": "secret_keys",
    "secretKeys": "secret_keys",
    "allowedOrigin": "allowed_origin",
    "ttl": "ttl",
    "forcedUser": "forced_user",
    "forceUser": "forced_user",
    "forcedPassword": "forced_password",
    "ignoreJWT": "ignore_jwt",
    "userClaim": "user_claim",
    "requiredJWTScope": "required_scopes",
    "jwkURIS": "jwk_urls",
    "jwkURLs": "jwk_urls",
    "jwtPublicKeys": "public_keys",
    "turnURIS": "turn_uris",
    "stunURIS": "stun_uris",
}
"""Members of a TurnRest file, and the keys of ``[turn]`` that say the same."""

_NAMES: Final = ("user_claim", "required_scopes", "scope_claims", "issuer", "audience")
"""Keys whose values are names, of which none has a character that nobody sees."""


class TurnSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/turn`` works with.

    Attributes:
        secret_keys: shared with the TURN servers; the first signs. Empty only with a forced
            password.
        allowed_origins: origins whose pages may ask, as browsers write them, or ``ANY_ORIGIN``.
        ttl: seconds for which credentials are good, at most.
        forced_user: everybody's user, whatever their tokens say.
        forced_password: a static password, in place of an expiry and an HMAC.
        ignore_jwt: everybody gets credentials.
        user_claim: the claim that names the user, or the path to it.
        required_scopes: one of them must be in the token; empty: none is asked for.
        scope_claims: the claims that hold scopes, or the paths to them.
        jwk_urls: where JWK sets are; https, or http on a loopback host.
        public_keys: base64 of DER SubjectPublicKeyInfo.
        issuer: what ``iss`` must be, or None.
        audience: what ``aud`` must be or hold, or None.
        turn_uris: URIs to hand out, normalised; at least one.
        stun_uris: likewise; may be empty.
        access_keys: also take customers' tokens whose ``sub`` names ``turn``.
        watch_servers: leave out servers that do not answer.
        watch_interval: seconds between two looks at them.
        leeway: seconds by which a caller's clock may be off.
    """

    secret_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ANY_ORIGIN
    ttl: int = 43200
    forced_user: str | None = None
    forced_password: str | None = None
    ignore_jwt: bool = False
    user_claim: str | None = None
    required_scopes: tuple[str, ...] = ()
    scope_claims: tuple[str, ...] = ("scope", "scp", "scopes")
    jwk_urls: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    issuer: str | None = None
    audience: str | None = None
    turn_uris: tuple[str, ...]
    stun_uris: tuple[str, ...] = ()
    access_keys: bool = False
    watch_servers: bool = True
    watch_interval: float = 5.0
    leeway: int = 60

    def __repr__(self) -> str:
        """Show every field but the secret ones."""
        shown = (
            f"{name}={'…' if name in Turn.hidden_keys else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class _Place(msgspec.Struct, frozen=True):
    """Where settings are written, for messages.

    Attributes:
        source: name of the file.
        names: how keys of ``[turn]``, or their items, are called there, where it is not ``[turn]``.
        tolerant: whether what does no harm, but cannot work, is a warning.
    """

    source: str
    names: Mapping[str, str] = {}
    tolerant: bool = False

    def name(self, key: str) -> str:
        return self.names.get(key, f"turn.{key}")

    def error(self, key: str, text: str) -> ConfigError:
        return config_error(self.source, self.name(key), text)

    def warning(self, key: str, text: str) -> str:
        return str(self.error(key, text))

    def useless(self, key: str, text: str) -> str:
        """Return a warning of what cannot work.

        Raises:
            ConfigError: here that is an error.
        """
        error = self.error(key, text)
        if not self.tolerant:
            raise error
        return str(error)


def from_config(turn: Turn, source: str = "") -> tuple[TurnSettings, list[str]]:
    """Check what ``[turn]`` says.

    Args:
        turn: the section, without a TurnRest file.
        source: name of the file that it comes from.

    Returns:
        The settings, and warnings for the log, one line each.

    Raises:
        ConfigError: they cannot be used.
    """
    return _settle(turn, _Place(source))


def from_turnrest_json(
    text: bytes, source: str, beside: Turn | None = None
) -> tuple[TurnSettings, list[str]]:
    """Read a TurnRest file; its members are those of the wire reference, and ``secretKeys``.

    Null stands for an absent member or item, and so does an empty text; a list without items is
    absent. Where the same is given under two names, lists are joined.

    Args:
        text: what the file holds.
        source: its name.
        beside: gives what such a file cannot say; None: the defaults.

    Returns:
        As ``from_config``.

    Raises:
        ConfigError: it is not JSON, or the settings cannot be used.
    """
    document = _decode(text, source)
    names = {key: member for member, key in reversed(_MEMBERS.items())}
    values = {key: getattr(beside or Turn(), key) for key in BESIDE_FILE}
    hints = get_type_hints(Turn, include_extras=True) | {"secretKey": Text}
    for member, key in _MEMBERS.items():
        given = document.get(member)
        if is_absent(given):
            continue
        # Of an origin, as of others that no browser sends, there is a warning.
        if key != "allowed_origin" and (half := half_in({member: given})):
            raise config_error(source, "", f"{half}; write the whole character")
        value, positions = _converted(given, hints.get(member, hints[key]), source, member)
        if isinstance(value, tuple):
            earlier = values.get(key, ())
            names |= {f"{key}[{len(earlier) + n}]": name for n, name in enumerate(positions)}
            value = earlier + value
        elif values.get(key, value) != value:
            raise config_error(source, member, f"{names[key]} says otherwise; keep one of them")
        values[key] = value
    settings, warnings = _settle(Turn(**values), _Place(source, names, tolerant=True))
    unknown = [_unknown(member, source) for member in document if member not in _MEMBERS]
    return settings, unknown + warnings


def _converted(given: Any, wanted: Any, source: str, member: str) -> tuple[Any, list[str]]:
    """Return what a member says as the wanted type, and names of its items if it is a list.

    Raises:
        ConfigError: it is of another type.
    """
    if not isinstance(given, list):
        value = convert(given, wanted, source, member)
        return ((value,), [member]) if member == "secretKey" else (value, [])
    # Where an item is absent something else keeps its place, as errors count the items.
    filled = ["absent" if is_nothing(item) else item for item in given]
    value = convert(filled, wanted, source, member)
    kept = [index for index, item in enumerate(given) if not is_nothing(item)]
    return tuple(value[index] for index in kept), [f"{member}[{index}]" for index in kept]


def _decode(text: bytes, source: str) -> dict[str, Any]:
    try:
        document = read_document(text)
    except NotJsonError as error:
        raise config_error(source, error.place, f"invalid JSON: {error.cause}") from None
    if not isinstance(document, dict):
        raise config_error(source, "", "not a JSON object; write one")
    return document


def _unknown(member: str, source: str) -> str:
    near = difflib.get_close_matches(member[:60], _MEMBERS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return str(config_error(source, key_text(member), f"unknown, and thus ignored{hint}"))


def _settle(turn: Turn, place: _Place) -> tuple[TurnSettings, list[str]]:
    """Check what types cannot say."""
    if not turn.secret_keys and turn.forced_password is None:
        raise place.error("secret_keys", "missing; write the secret that your TURN servers have")
    origins, warnings = _origins(turn, place)
    turn_uris = _uris(turn, "turn_uris", "turn", place)
    if not turn_uris:
        raise place.error(
            "turn_uris", 'no URI is given; write at least one, as ["turn:turn.example.com"]'
        )
    _check_items(turn, "jwk_urls", _check_jwk_url, place)
    _check_items(turn, "public_keys", lambda text: static_key(text, ""), place)
    settings = TurnSettings(
        secret_keys=_distinct(turn.secret_keys),
        allowed_origins=origins,
        ttl=turn.ttl,
        forced_user=turn.forced_user or None,
        forced_password=turn.forced_password,
        ignore_jwt=turn.ignore_jwt,
        user_claim=turn.user_claim,
        required_scopes=turn.required_scopes,
        scope_claims=turn.scope_claims,
        jwk_urls=_distinct(turn.jwk_urls),
        public_keys=_distinct(turn.public_keys),
        issuer=turn.issuer,
        audience=turn.audience,
        turn_uris=turn_uris,
        stun_uris=_uris(turn, "stun_uris", "stun", place),
        access_keys=turn.access_keys,
        watch_servers=turn.watch_servers,
        watch_interval=turn.watch_interval,
        leeway=turn.leeway,
    )
    warnings += _unseen(turn, place) + _user_warnings(settings, place) + _warnings(turn, place)
    return settings, warnings


def _unseen(turn: Turn, place: _Place) -> list[str]:
    """Return warnings of characters that came along unseen when a name or secret was copied."""
    warnings = []
    for key in (*_NAMES, "forced_user", "forced_password", "secret_keys"):
        # A password may be meant so.
        say = place.useless if key in _NAMES else place.warning
        for name, text in _texts(turn, key):
            if char := unseen(text):
                warnings.append(say(name, f"it holds {char}, which nobody sees; write it anew"))
    return warnings


def _texts(turn: Turn, key: str) -> list[tuple[str, str]]:
    """Return what a key says, one text or several, each with its name."""
    value = getattr(turn, key)
    if isinstance(value, str):
        return [(key, value)]
    return [(f"{key}[{index}]", text) for index, text in enumerate(value or ())]


def _origins(turn: Turn, place: _Place) -> tuple[tuple[str, ...], list[str]]:
    """Return the origins that browsers can send, and warnings of others."""
    key = "allowed_origin"
    named = _texts(turn, key)
    texts = [text for _, text in named]
    if set(texts) == set(ANY_ORIGIN):
        return ANY_ORIGIN, []
    if ANY_ORIGIN[0] in texts:
        return ANY_ORIGIN, [place.useless(key, '"*" is all origins; remove it, or the others')]
    origins, warnings = [], []
    for name, text in named:
        try:
            origins.append(check_origin(text))
        except ValueError as error:
            warnings.append(place.useless(name, f"no page is let in by it: {error}"))
    return _distinct(tuple(origins)), warnings


def _user_warnings(settings: TurnSettings, place: _Place) -> list[str]:
    forced, warnings = settings.forced_user, []
    if forced and settings.user_claim:
        text = f"without effect, as {place.name('forced_user')} is everybody's user; remove one"
        warnings.append(place.warning("user_claim", text))
    # Beside a forced password it cannot be replaced by its hash.
    if forced and settings.forced_password and len(forced.encode()) > MAX_USERNAME:
        text = f"longer than the {MAX_USERNAME} bytes that browsers take; write a shorter one"
        warnings.append(place.useless("forced_user", text))
    return warnings


def _warnings(turn: Turn, place: _Place) -> list[str]:
    warnings = []
    if turn.ignore_jwt:
        warnings.append(
            place.warning(
                "ignore_jwt",
                "TURN CREDENTIALS ARE HANDED OUT TO EVERYBODY, without a token; "
                "set it to false outside of tests",
            )
        )
    elif not (turn.jwk_urls or turn.public_keys or turn.access_keys):
        keys = f"{place.name('jwk_urls')}, {place.name('public_keys')} or turn.access_keys"
        warnings.append(
            place.warning(
                "jwk_urls", f"there is no key to check tokens with, so nobody is let in; set {keys}"
            )
        )
    # Whoever is given a user name and its HMAC can try secrets at home.
    warnings += [
        place.warning(
            f"secret_keys[{index}]",
            f"short enough to be guessed; write {SHORT_SECRET} random characters or more",
        )
        for index, secret in enumerate(turn.secret_keys)
        if len(secret) < SHORT_SECRET
    ]
    return warnings


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _check_items(turn: Turn, key: str, check: Callable[[str], object], place: _Place) -> None:
    for name, text in _texts(turn, key):
        try:
            check(text)
        except ValueError as error:
            raise place.error(name, str(error)) from None


def _uris(turn: Turn, key: str, scheme: Scheme, place: _Place) -> tuple[str, ...]:
    uris: list[str] = []

    def check(text: str) -> None:
        uri = parse_uri(text, scheme)
        if not uri.scheme.startswith(scheme):
            wanted = "stun_uris" if scheme == "turn" else "turn_uris"
            raise ValueError(f"{uri.text!r} is of another kind; move it to {place.name(wanted)}")
        uris.append(uri.text)

    _check_items(turn, key, check, place)
    return _distinct(tuple(uris))


def _check_jwk_url(url: str) -> None:
    """Refuse URLs whose answer could be forged; they are not repeated, as they may hold secrets."""
    wanted = 'write a URL such as "https://login.example.com/jwks"'
    if _FILE.match(url):
        raise ValueError(
            "a JWK set cannot be read from a file; serve it over http on this host, or convert "
            "its keys for public_keys"
        )
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"it holds a character that must be percent-encoded; {wanted}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"malformed host or port; {wanted}") from None
    if not host or parts.scheme not in {"http", "https"}:
        raise ValueError(f"not an absolute https URL; {wanted}")
    if parts.username is not None:
        raise ValueError(f"a user cannot be given here; {wanted}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"keys that come over http can be forged on the way, unless from this host; {wanted}"
        )
