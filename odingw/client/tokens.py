"""Client tokens for calls: one that exists, from a function, or made from an access key."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from odingw.tokens import AccessKey, SecretKey, TokenGenerator
from odingw.tokens.generator import Names

LIFETIME: Final = 60
"""Seconds for which a token made here is good."""


class AccessKeyTokens:
    """Makes a token for each call, which is good for that method and room alone.

    Args:
        key: an access key, or its text.
        room: the room of calls that name none, such as ``Connect``; several as in
            :meth:`odingw.tokens.TokenGenerator.create_token`.
        user: the user of the tokens: who joins, for ``Connect``.
        lifetime: seconds for which a token is good.
        now: returns unix seconds.

    Raises:
        KeyMaterialError: the text is no access key.
    """

    def __init__(
        self,
        key: AccessKey | SecretKey | str,
        room: Names | None = None,
        user: str = "",
        *,
        lifetime: int = LIFETIME,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._generator = TokenGenerator(key)
        self._room = room
        self._user = user
        self._lifetime = lifetime
        self._now = now

    def __repr__(self) -> str:
        return f"AccessKeyTokens({self._generator!r}, room={self._room!r}, user={self._user!r})"

    def token_for(self, method: str, params: Mapping[str, object]) -> str:
        """Return a token for a call.

        Raises:
            ValueError: neither the call nor this object names a room.
        """
        named = params.get("room_id")
        room = named if isinstance(named, str) else self._room
        if room is None:
            raise ValueError(f"room: a token for {method} needs one; give AccessKeyTokens a room")
        return self._generator.create_token(
            room,
            self._user,
            now=self._now(),
            lifetime=self._lifetime,
            audience="gateway",
            subject=method,
        )
