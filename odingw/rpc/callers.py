"""Who calls: from a token to a customer, its rights and its limits (wire reference, section 2)."""

from collections.abc import Callable, Collection
from typing import Final, Protocol, TypeAlias

from msgspec import UNSET, Struct

from odingw.errors import (
    FORBIDDEN,
    UNAUTHORIZED,
    Reason,
    Refused,
    RpcError,
    TokenError,
    TokenFault,
)
from odingw.grid.usage import DEMO_PREFIX, LONGEST_CUSTOMER
from odingw.rpc.openrpc import DISCOVER
from odingw.tokens import (
    Claims,
    Policy,
    SecretKey,
    Verified,
    check_claims,
    decode_claims,
    parse,
    verify,
)

_SIGNATURE_LENGTH: Final = 86

BEARER_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="odingw"'}


class Licence(Protocol):
    """A customer and what it may use."""

    @property
    def id(self) -> str:
        """The customer's id."""

    @property
    def max_peers(self) -> int | None:
        """How many peers at a time; None: any number."""

    @property
    def max_rooms(self) -> int | None:
        """How many rooms at a time; None: any number."""


class CustomerKey(Protocol):
    """A customer's access key, public half."""

    @property
    def kid(self) -> str:
        """The key's id."""

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the Ed25519 key."""

    @property
    def namespace(self) -> str:
        """Namespace of the rooms that its tokens name."""

    @property
    def customer(self) -> Licence:
        """Whose it is."""


class DemoLimits(Struct, frozen=True):
    """What unknown customers may use in demo mode, each, and all together."""

    max_peers: int
    max_rooms: int
    total_peers: int


class AccessRules(Struct, frozen=True, kw_only=True):
    """How strictly tokens are judged; the names are those of the configuration."""

    policy: Policy = Policy()
    require_subject: bool = True
    room_match: str = "exact"
    server_tokens: bool = True
    unknown_customers: DemoLimits | None = None


class Caller(Struct, frozen=True, gc=False, kw_only=True):
    """An authenticated caller of the client API.

    Attributes:
        kid: id of the key that signed the token.
        customer: id of the customer whose usage counts.
        namespace: namespace of the rooms that the token names.
        max_peers: how many peers the customer may have; None: any number.
        max_rooms: how many rooms the customer may have; None: any number.
        demo_peers: how many peers all demo users together may have, for one of them.
        methods: the methods that the token may call.
        claims: the token's claims.
        user: the token's user id, possibly empty.
        rooms: the room names of the token's ``rid``.
        token_id: tells this token from another one.
        relaxed: strict rules that this token breaks and the configuration lets pass.
    """

    kid: str
    customer: str
    namespace: str
    max_peers: int | None = None
    max_rooms: int | None = None
    demo_peers: int | None = None
    methods: Collection[str]
    claims: Claims
    user: str
    rooms: tuple[str, ...]
    token_id: str
    relaxed: tuple[str, ...]

    @property
    def is_demo(self) -> bool:
        """Whether nobody has checked who it is."""
        return self.demo_peers is not None


class _ServerKey:
    """The key of an attached server, as a key that may have signed a client's token."""

    __slots__ = ("kid", "public_key")

    def __init__(self, key: SecretKey) -> None:
        self.kid = key.kid
        self.public_key = key.public_key


_AnyKey: TypeAlias = CustomerKey | _ServerKey


class Authenticator:
    """Turns tokens into callers.

    Args:
        methods: the names of all methods of the client API.
        rules: how strictly tokens are judged.
        customer_key: finds a customer's access key by its id.
        server_key: finds the key of an attached server by its id.
        reserved: tells whether a customer id or namespace is configured, so that no demo user
            can have it.
    """

    def __init__(
        self,
        methods: Collection[str],
        rules: AccessRules,
        customer_key: Callable[[str], CustomerKey | None],
        server_key: Callable[[str], SecretKey | None],
        reserved: Callable[[str], bool],
    ) -> None:
        self._rules = rules
        self._customer_key = customer_key
        self._server_key = server_key
        self._reserved = reserved
        self._methods = frozenset(methods)
        # Whoever may call something may ask what there is.
        always = self._methods & {DISCOVER}
        self._by_subject = {name.lower(): always | {name} for name in methods}

    def authenticate(self, token: str, now: float) -> Caller:
        """Return the caller that a token speaks for.

        Args:
            token: a compact JWT.
            now: unix seconds, wall clock.

        Raises:
            TokenError: the token is not valid.
            RpcError: it is, but names no method of this API (403).
        """
        policy = self._rules.policy
        try:
            verified: Verified[_AnyKey] = verify(token, self._find, now=now, policy=policy)
        except TokenError as error:
            demo = self._rules.unknown_customers
            if error.fault is not TokenFault.UNKNOWN_KEY or demo is None:
                raise
            return self._demo_caller(token, now, demo)
        key, claims = verified.key, verified.claims
        methods, relaxed = self._methods_of(claims, verified.relaxed)
        if isinstance(key, _ServerKey):
            if claims.cid is UNSET or claims.nsp is UNSET:
                raise TokenError(TokenFault.CLAIMS, "a server's token needs the claims cid and nsp")
            customer, namespace = claims.cid, claims.nsp
            if max(len(customer), len(namespace)) > LONGEST_CUSTOMER:
                raise TokenError(
                    TokenFault.CLAIMS,
                    f"token claims cid and nsp must have at most {LONGEST_CUSTOMER} characters",
                )
            max_peers = max_rooms = None
        else:
            licence = key.customer
            customer, namespace = licence.id, key.namespace
            max_peers, max_rooms = licence.max_peers, licence.max_rooms
        return Caller(
            kid=key.kid,
            customer=customer,
            namespace=namespace,
            max_peers=max_peers,
            max_rooms=max_rooms,
            methods=methods,
            claims=claims,
            user=claims.uid or "",
            rooms=_rooms(claims),
            token_id=token[-_SIGNATURE_LENGTH:],
            relaxed=relaxed,
        )

    def _find(self, kid: str) -> _AnyKey | None:
        key = self._customer_key(kid)
        if key is not None or not self._rules.server_tokens:
            return key
        server = self._server_key(kid)
        return _ServerKey(server) if server else None

    def _demo_caller(self, token: str, now: float, demo: DemoLimits) -> Caller:
        jws = parse(token, self._rules.policy.algorithms)
        claims = decode_claims(jws.payload)
        relaxed = check_claims(claims, now=now, policy=self._rules.policy)
        customer = DEMO_PREFIX + jws.header.kid
        if len(customer) > LONGEST_CUSTOMER:
            raise TokenError(TokenFault.UNKNOWN_KEY, "not authorized")
        if self._reserved(customer):
            raise TokenError(TokenFault.UNKNOWN_KEY, "not authorized")
        methods, relaxed = self._methods_of(claims, relaxed)
        if "Connect" not in methods:
            raise _denied('the claim sub must name "Connect", the only method of unknown customers')
        return Caller(
            kid=jws.header.kid,
            customer=customer,
            namespace=customer,
            max_peers=demo.max_peers,
            max_rooms=demo.max_rooms,
            demo_peers=demo.total_peers,
            methods=frozenset(("Connect",)),
            claims=claims,
            user=claims.uid or "",
            rooms=_rooms(claims),
            token_id=token[-_SIGNATURE_LENGTH:],
            relaxed=relaxed,
        )

    def _methods_of(
        self, claims: Claims, relaxed: tuple[str, ...]
    ) -> tuple[Collection[str], tuple[str, ...]]:
        subject = claims.sub
        if subject is UNSET:
            if self._rules.require_subject:
                raise _denied(
                    "the token has no claim sub, which names the methods that it may call, such "
                    'as "Connect"'
                )
            return self._methods, (*relaxed, "require_subject")
        nothing: frozenset[str] = frozenset()
        if isinstance(subject, str):
            methods = self._by_subject.get(subject.lower(), nothing)
        else:
            methods = nothing.union(
                *(self._by_subject.get(name.lower(), nothing) for name in subject)
            )
        if not methods:
            raise _denied("the claim sub names no method of this API")
        return methods, relaxed


def _rooms(claims: Claims) -> tuple[str, ...]:
    rid = claims.rid
    return (rid,) if isinstance(rid, str) else tuple(rid or ())


def _denied(detail: str) -> RpcError:
    return RpcError(FORBIDDEN, "access denied by token restrictions", {"detail": detail})


def unauthorized(error: TokenError) -> RpcError:
    """Return the answer to a refused token (401)."""
    data = {"detail": error.detail} if error.detail else None
    return RpcError(UNAUTHORIZED, error.message, data, BEARER_CHALLENGE)


def missing_authorization() -> TokenError:
    """Return the error for a request that brings no token."""
    return TokenError(
        TokenFault.MISSING,
        "invalid or missing authorization",
        'the request needs one header "Authorization: Bearer TOKEN"',
    )


def check_length(token: str, most: int) -> None:
    """Raise ``TokenError`` if a token has more than ``most`` characters."""
    if len(token) > most:
        raise TokenError(
            TokenFault.MALFORMED, f"token is longer than {most} characters (limits.token)"
        )


def match_room(caller: Caller, room: str, room_match: str) -> bool:
    """Check that the caller's token speaks for a room.

    Args:
        caller: who calls.
        room: the room's name, ``room_id`` of a management call.
        room_match: ``exact``, or ``prefix``: a name that begins with one of the token's names.

    Returns:
        Whether only the prefix matched.

    Raises:
        Refused: the token does not speak for it (``room_mismatch``).
    """
    if room in caller.rooms:
        return False
    if room_match == "prefix" and room.startswith(caller.rooms):
        return True
    raise Refused(Reason.ROOM_MISMATCH)
