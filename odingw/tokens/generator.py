"""Client tokens as a game backend makes them (wire reference, sections 1 and 2)."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from odingw.tokens.keys import AccessKey, SecretKey

Names: TypeAlias = str | Sequence[str]


class TokenGenerator:
    """Makes client tokens with one key.

    Args:
        key: an access key, its text, or the secret key in it.

    Raises:
        KeyMaterialError: the text is no access key.
    """

    __slots__ = ("_key",)

    def __init__(self, key: AccessKey | SecretKey | str) -> None:
        if isinstance(key, str):
            key = AccessKey(key)
        self._key = key.secret_key if isinstance(key, AccessKey) else key

    def __repr__(self) -> str:
        return f"TokenGenerator(kid={self._key.kid!r})"

    def create_token(
        self,
        room: Names,
        user: str,
        *,
        now: float,
        lifetime: int = 300,
        customer: str | None = None,
        audience: Names | None = None,
        subject: Names = "connect",
        address: str | None = None,
        tags: Names | None = None,
        upstream: str | None = None,
        internal: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a signed token.

        Args:
            room: the room's name (``rid``), or several with the same base.
            user: the user's id (``uid``), which may be empty.
            now: unix seconds, from when the token is valid (``nbf``); a fraction is dropped.
            lifetime: seconds for which it is valid (``exp``).
            customer: the customer's id (``cid``).
            audience: whom the token is meant for (``aud``), such as ``gateway``.
            subject: the methods that it may call (``sub``).
            address: a server's address (``adr``).
            tags: tags (``tgs``).
            upstream: upstream (``ups``).
            internal: ``{"server": address}``: the one server to place a new room on.

        Raises:
            ValueError: a text cannot be written as UTF-8.
        """
        begin = int(now)
        claims = {
            "rid": _plain(room),
            "uid": user,
            "adr": address,
            "tgs": _plain(tags),
            "ups": upstream,
            "cid": customer,
            "sub": _plain(subject),
            "aud": _plain(audience),
            "exp": begin + lifetime,
            "nbf": begin,
            "internal": None if internal is None else dict(internal),
        }
        present = {name: value for name, value in claims.items() if value is not None}
        return self._key.sign_jwt(msgspec.json.encode(present))


def _plain(names: Names | None) -> str | list[str] | None:
    return names if names is None or isinstance(names, str) else list(names)
