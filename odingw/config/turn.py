"""The ``[turn]`` section; see ``odingw.config.sections`` for the conventions.

Types and bounds are checked here. What the values mean is checked by ``odingw.turn.settings``, in
the same way for a TurnRest file.
"""

from pathlib import Path
from typing import Annotated, Final, Self

from msgspec import Meta

from odingw.config.types import TEN_YEARS, Seconds, Section, Switch, Text

BESIDE_FILE: Final = (
    "issuer",
    "audience",
    "scope_claims",
    "access_keys",
    "watch_servers",
    "watch_interval",
    "leeway",
)
"""What a TurnRest file cannot say, and thus may stand beside ``turn.config``."""


class Turn(Section, frozen=True, kw_only=True):
    """TURN REST: what credentials are made of, and who gets them.

    Attributes:
        config: a TurnRest file (JSON), in place of all keys but ``BESIDE_FILE``.
        secret_keys: shared with the TURN servers, the first signs; after loading also what
            ``secret_keys_file`` held.
        secret_keys_file: holds a secret per line.
        ttl: how long credentials are good, at most.
        turn_uris: TURN URIs to hand out; ``turn:`` may be left out.
        stun_uris: STUN URIs to hand out; ``stun:`` may be left out.
        allowed_origin: ``*``, or the origins whose pages may ask.
        forced_user: everybody's user, whatever their tokens say; empty: none.
        forced_password: a static password, in place of an expiry and an HMAC.
        ignore_jwt: everybody gets credentials.
        user_claim: the claim that names the user, or the path to it.
        required_scopes: a token must have one of them; empty: none is asked for.
        scope_claims: the claims that hold scopes, or the paths to them.
        jwk_urls: JWK sets of those who sign tokens.
        public_keys: base64 of DER SubjectPublicKeyInfo.
        issuer: what the claim ``iss`` must be.
        audience: what the claim ``aud`` must be or hold.
        access_keys: also take customers' tokens whose ``sub`` names ``turn``.
        watch_servers: leave out servers that do not answer.
        watch_interval: how long to wait between two looks at them.
        leeway: how far a caller's clock may be off.
    """

    hidden_keys = frozenset({"secret_keys", "forced_password"})

    config: Annotated[Path | None, Meta(description="the path of a JSON file, in quotes")] = None
    secret_keys: Annotated[
        tuple[Text, ...], Meta(description='a list of secrets such as ["…"], the first signs')
    ] = ()
    secret_keys_file: Annotated[Path | None, Meta(description="the path of a file, in quotes")] = (
        None
    )
    ttl: Annotated[
        int,
        Meta(
            ge=1,
            le=TEN_YEARS,
            description="a whole number of seconds, at least 1, at most ten years",
        ),
    ] = 43200
    turn_uris: Annotated[
        tuple[str, ...],
        Meta(description='a list of TURN URIs such as ["turn:turn.example.com:3478"]'),
    ] = ()
    stun_uris: Annotated[
        tuple[str, ...],
        Meta(description='a list of STUN URIs such as ["stun:turn.example.com:3478"]'),
    ] = ()
    allowed_origin: Annotated[
        str | Annotated[tuple[str, ...], Meta(min_length=1)],
        Meta(description='"*", an origin such as "https://app.example.com", or a list of origins'),
    ] = "*"
    forced_user: Annotated[str, Meta(description="a text, in quotes")] | None = None
    forced_password: Text | None = None
    ignore_jwt: Switch = False
    user_claim: Text | None = None
    required_scopes: Annotated[
        tuple[Text, ...], Meta(description='a list of scopes such as ["turn"]')
    ] = ()
    scope_claims: Annotated[
        tuple[Text, ...], Meta(min_length=1, description='a list of claims such as ["scp"]')
    ] = ("scope", "scp", "scopes")
    jwk_urls: Annotated[
        tuple[str, ...],
        Meta(description='a list of URLs such as ["https://login.example.com/jwks"]'),
    ] = ()
    public_keys: Annotated[
        tuple[str, ...], Meta(description="a list of public keys, each base64 of its DER form")
    ] = ()
    issuer: Text | None = None
    audience: Text | None = None
    access_keys: Switch = False
    watch_servers: Switch = True
    watch_interval: Seconds = 5.0
    leeway: Annotated[
        int, Meta(ge=0, le=TEN_YEARS, description="a whole number of seconds, 0 or more")
    ] = 60

    def with_file(self, path: Path) -> Self:
        """The same with a TurnRest file, in place of all that such a file can say."""
        return type(self)(config=path, **{key: getattr(self, key) for key in BESIDE_FILE})
