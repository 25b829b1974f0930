"""Who is let in: customers and their access keys, from lists that may be wrong in parts.

Lists from outside use the names of the existing gateway (wire reference, section 8)::

    [{"id": "acme", "maxPeers": 100, "maxRooms": null,
      "accessKeys": [{"namespace": "acme", "publicKey": {"kid": …, "kty": "OKP", …}}]}]
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from odingw.config import CustomerConfig
from odingw.config.types import LONGEST_NAME
from odingw.documents import half_in, is_absent, unseen, whole
from odingw.errors import KeyMaterialError, OdingwError
from odingw.tokens import KeyType, is_key_id_of, load_public_jwk

MOST_PROBLEMS: Final = 1000
"""How many problems of a list are kept: one of nothing but problems has millions."""

_LARGEST: Final = 2**53 - 1
"""The largest limit; every reader of JSON takes it for the same number (RFC 8259, section 6)."""


class Customer(Struct, frozen=True, gc=False):
    """A licensee.

    Attributes:
        id: its id, not empty.
        max_peers: how many peers at a time; None: no limit.
        max_rooms: how many rooms at a time; None: no limit.
    """

    id: str
    max_peers: int | None
    max_rooms: int | None


class CustomerKey(Struct, frozen=True, gc=False):
    """The public half of a customer's access key.

    Attributes:
        kid: the key's id.
        public_key: the Ed25519 key: 32 raw bytes.
        namespace: of the rooms that its tokens name.
        customer: whose key it is.
    """

    kid: str
    public_key: bytes
    namespace: str
    customer: Customer


class Directory(Struct, frozen=True):
    """All customers of a list that can be used.

    Attributes:
        keys: access keys by key id.
        customers: customers by id, those without keys too.
        problems: what was left out and why, a line each.
        refused: key ids that are valid for nobody because several claim them.
        namespaces: of all keys, looked up for every stranger.
    """

    keys: dict[str, CustomerKey] = field(default_factory=dict)
    customers: dict[str, Customer] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()


class _RefusedError(OdingwError):
    """A customer cannot be used; the text says why."""


class _Problems:
    """Keeps the first problems of a list, and counts the others."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._more = 0

    def add(self, problem: str) -> None:
        """Take in a problem."""
        if len(self._kept) < MOST_PROBLEMS:
            self._kept.append(problem)
        else:
            self._more += 1

    def lines(self) -> tuple[str, ...]:
        """Return what there is to say."""
        if not self._more:
            return tuple(self._kept)
        return (*self._kept, f"{self._more} more problems of customers are not named")


def directory(documents: Sequence[object]) -> Directory:
    """Read a list of customers.

    A limit of null is none; an absent one, or a member of a wrong type, refuses the customer; other
    members are ignored, with a line if they are no Unicode. An empty ``accessKeys`` is a customer
    without keys. A broken key is left out, the customer's other keys stay. A key id that two
    customers claim, or one customer for two keys, is valid for nobody.

    Args:
        documents: the customers, as they come from JSON.
    """
    customers: dict[str, Customer] = {}
    claims: dict[str, list[CustomerKey]] = {}
    problems = _Problems()
    for number, document in enumerate(documents, 1):
        name = f"customer {number} of the list"
        try:
            if not isinstance(document, Mapping):
                raise _RefusedError("it is not an object")
            customer_id = document.get("id")
            if not isinstance(customer_id, str) or not customer_id:
                raise _RefusedError("id must be a text that is not empty")
            name = f"customer {_shown(customer_id)}"
            if customer_id in customers:
                raise _RefusedError("an earlier customer has that id")
            max_peers, max_rooms = _limit(document, "maxPeers"), _limit(document, "maxRooms")
            access_keys = document.get("accessKeys")
            if not isinstance(access_keys, list | tuple):
                raise _RefusedError("accessKeys must be a list")
            if half := half_in({"id": customer_id}):
                raise _RefusedError(str(half))
            if wrong := _unfit(customer_id):
                raise _RefusedError(f"id {wrong}")
        except _RefusedError as error:
            problems.add(f"{name} is refused: {error}")
            continue
        if half := half_in({**document, "accessKeys": ()}):
            problems.add(f"{name} is taken without its {half}")
        customer = customers[customer_id] = Customer(customer_id, max_peers, max_rooms)
        for position, access_key in enumerate(access_keys, 1):
            try:
                key = _key(customer, access_key)
            except KeyMaterialError as error:
                problems.add(f"{_called(position, access_key)} of {name} is skipped: {error}")
            else:
                claims.setdefault(key.kid, []).append(key)
    keys = {kid: found[0] for kid, found in claims.items() if _agree(found)}
    for kid, found in claims.items():
        if kid not in keys:
            problems.add(_disagreement(kid, found))
    return _made(keys, customers, problems, frozenset(claims.keys() - keys.keys()))


def static_directory(customers: Iterable[CustomerConfig]) -> Directory:
    """Read the configuration's ``[[gateway.customers]]``, where an absent limit is none."""
    return directory(
        [
            {
                "id": customer.id,
                "maxPeers": customer.max_peers,
                "maxRooms": customer.max_rooms,
                "accessKeys": [
                    {"namespace": key.namespace, "publicKey": key.public_key}
                    for key in customer.access_keys
                ],
            }
            for customer in customers
        ]
    )


def combined(static: Directory, fetched: Directory) -> Directory:
    """Put the configuration's customers and a source's together; the configuration's win."""
    problems = _Problems()
    for problem in (*static.problems, *fetched.problems):
        problems.add(problem)
    customers, keys = dict(static.customers), dict(static.keys)
    for customer in fetched.customers.values():
        if customer.id in static.customers:
            problems.add(
                f"customer {_shown(customer.id)} of the source is refused: "
                "the configuration has a customer of that id"
            )
        else:
            customers[customer.id] = customer
    for key in fetched.keys.values():
        if key.customer.id in static.customers:
            continue
        if key.kid in static.keys or key.kid in static.refused:
            problems.add(
                f"key id {_shown(key.kid)} of customer {_shown(key.customer.id)} of the source is "
                "refused: a customer of the configuration claims it"
            )
        else:
            keys[key.kid] = key
    refused = (static.refused | fetched.refused) - keys.keys()
    return _made(keys, customers, problems, refused)


def _made(
    keys: dict[str, CustomerKey],
    customers: dict[str, Customer],
    problems: _Problems,
    refused: frozenset[str],
) -> Directory:
    namespaces = frozenset(key.namespace for key in keys.values())
    return Directory(keys, customers, problems.lines(), refused, namespaces)


def _limit(document: Mapping[str, object], member: str) -> int | None:
    value = whole(document.get(member, ""))
    if value is not None and is_absent(value):
        raise _RefusedError(f"{member} is absent (null is no limit)")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _RefusedError(f"{member} must be a whole number, 0 or more, or null")
    if value > _LARGEST:
        raise _RefusedError(f"{member} must be {_LARGEST} at most (null is no limit)")
    return value


def _key(customer: Customer, access_key: object) -> CustomerKey:
    if not isinstance(access_key, Mapping):
        raise KeyMaterialError("it is not an object")
    if half := half_in(access_key):
        raise KeyMaterialError(str(half))
    namespace = access_key.get("namespace")
    if is_absent(namespace):
        namespace = customer.id
    if not isinstance(namespace, str):
        raise KeyMaterialError("namespace must be a text")
    if wrong := _unfit(namespace):
        raise KeyMaterialError(f"namespace {wrong}")
    jwk = load_public_jwk(access_key.get("publicKey"))
    if wrong := _unfit(jwk.kid):
        raise KeyMaterialError(f"its kid {wrong}")
    if is_key_id_of(jwk.kid, KeyType.DERIVED):
        # Found first as a customer's, it would lock out the server whose key has this id.
        raise KeyMaterialError("its kid has the form of a server's key")
    return CustomerKey(jwk.kid, jwk.public_key, namespace, customer)


def _unfit(name: str) -> str:
    """Say why an id or namespace cannot be kept; empty: it can."""
    if len(name) > LONGEST_NAME:
        return f"must have at most {LONGEST_NAME} characters"
    if char := unseen(name):
        return f"must not have {char}, which nobody sees"
    return "" if name.strip() or not name else "must not be white space alone"


def _called(position: int, access_key: object) -> str:
    """What to call a broken key."""
    jwk = access_key.get("publicKey") if isinstance(access_key, Mapping) else None
    kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
    return f"access key {position}" + (f" ({_shown(kid)})" if isinstance(kid, str) else "")


def _agree(claims: Sequence[CustomerKey]) -> bool:
    return all(claim == claims[0] for claim in claims)


def _disagreement(kid: str, claims: Sequence[CustomerKey]) -> str:
    owners = [_shown(owner) for owner in dict.fromkeys(claim.customer.id for claim in claims)]
    if len(owners) == 1:
        return (
            f"key id {_shown(kid)} is refused: customer {owners[0]} has it for two different keys "
            "or namespaces"
        )
    return f"key id {_shown(kid)} is refused: customers {' and '.join(owners)} claim it"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
