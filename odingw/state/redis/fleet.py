"""What the gateways that share a Redis must agree on."""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Any

from twisted.internet.defer import Deferred

from odingw.state.redis.layout import LAYOUT, OLDEST


class FleetError(Exception):
    """This gateway cannot be one of the fleet; the text says why."""


class Fleet:
    """What all gateways of a fleet must agree on.

    Args:
        prefix: how the names of keys begin.
        master_key: from which servers' keys are derived.
        layout: that this gateway writes.
    """

    def __init__(self, prefix: str, master_key: bytes, layout: int = LAYOUT) -> None:
        self.prefix = prefix
        self.layout = layout
        self.fingerprint = sha256(b"odingw fleet\0" + master_key).hexdigest()[:32]
        self._key = f"{{{prefix}}}:fleet"

    async def join(self, execute: Callable[..., Deferred[Any]]) -> None:
        """Make sure that this gateway belongs to the fleet.

        Raises:
            FleetError: it has another master key, or a layout that is too far from the fleet's.
            RedisAwayError: Redis did not answer.
        """
        await execute("HSETNX", self._key, "fingerprint", self.fingerprint)
        await execute("HSETNX", self._key, "layout", str(self.layout))
        fingerprint, layout = await execute("HMGET", self._key, "fingerprint", "layout")
        if not compare_digest(fingerprint.decode(), self.fingerprint):
            raise FleetError(
                "the gateways that share this Redis have another master key; configure the same "
                "gateway.master_key, or another state.prefix or database"
            )
        found = int(layout)
        if not OLDEST <= found <= self.layout + 1:
            raise FleetError(
                f"the state in Redis has layout {found}, and this version works with "
                f"{OLDEST} to {self.layout + 1}; upgrade one version at a time"
            )
        if found < self.layout:
            await execute("HSET", self._key, "layout", str(self.layout))
