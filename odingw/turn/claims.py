"""What a token says about the user and what the user may do, wherever its issuer writes it.

Issuers name claims as they like: ``https://app.example/user`` (a URL, as Auth0 wants it),
``cognito:groups``, or ``realm_access.roles`` for a member of an object, as Keycloak has it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET

from odingw.errors import TokenError, TokenFault

Claims = Mapping[str, Any]
"""What a token claims, as it came from JSON."""

_EXACT: Final = 2**53
"""Below it, no two integers become one float (RFC 8259, section 6)."""

_KINDS: Final = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}


def find_claim(claims: Claims, name: str) -> object:
    """Return the claim of exactly this name, else the one that the name leads to as a path.

    The steps of a path are members of objects, with dots between them. The rule holds at each step,
    so that a member whose name has dots is found too (``resource_access.my.app.roles``).

    Args:
        claims: what the token claims, or an object in it.
        name: a claim's name, or a path.

    Returns:
        What is there; ``UNSET``: nothing is.
    """
    if name in claims:
        return claims[name]
    for index, character in enumerate(name):
        inner = claims.get(name[:index]) if character == "." else None
        if isinstance(inner, dict):
            found = find_claim(inner, name[index + 1 :])
            if found is not UNSET:
                return found
    return UNSET


def user_of(claims: Claims, name: str) -> str | None:
    """Return the user that a claim names.

    An integer is its decimal text, also where it is written as 5.0.

    Args:
        claims: what the token claims.
        name: the claim's name, or a path to it.

    Returns:
        None if there is no such claim or it is empty.

    Raises:
        TokenError: it is neither a text nor an integer. The message says what it is, and no value.
    """
    value = find_claim(claims, name)
    if value is UNSET:
        return None
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    # A bool is an int to Python.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    kind = _KINDS.get(type(value), "no exact integer")
    raise TokenError(
        TokenFault.CLAIMS, f"token claim {name} is {kind}; it must be a text or an integer"
    )


def scopes_of(claims: Claims, names: Iterable[str]) -> frozenset[str]:
    """Return what the token may be used for.

    Each claim may be a list of texts or, as in OAuth 2 (RFC 8693, section 4.2), one text with
    spaces between the scopes. Anything else in them names nothing.

    Args:
        claims: what the token claims.
        names: where scopes are: names of claims, or paths to them.
    """
    found: set[str] = set()
    for name in names:
        value = find_claim(claims, name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(scope for scope in value if isinstance(scope, str))
    return frozenset(found)
