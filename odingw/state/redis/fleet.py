"""What the gateways that share a Redis must agree on."""

from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any

from twisted.internet.defer import Deferred

from odingw.state.known_key import fingerprint
from odingw.state.redis.layout import LAYOUT, OLDEST


class FleetError(Exception):
    """This gateway cannot be one of the fleet; the text says why."""


class Fleet:
    """What all gateways of a fleet must agree on.

    Args:
        prefix: how the names of keys begin.
        master_key: from which the keys are derived that servers are given.
        layout: that this gateway writes.
        older: further master keys that this gateway knows.
    """

    def __init__(
        self,
        prefix: str,
        master_key: bytes,
        layout: int = LAYOUT,
        older: Sequence[bytes] = (),
    ) -> None:
        self.prefix = prefix
        self.layout = layout
        self._fingerprints = tuple(fingerprint(key) for key in (master_key, *older))
        self._key = f"{{{prefix}}}:fleet"

    async def join(self, execute: Callable[..., Deferred[Any]]) -> None:
        """Make sure that this gateway belongs to the fleet.

        A gateway that knows the fleet's master key among others brings in its own first one; those
        that know only the one before are refused from then on.

        Raises:
            FleetError: it does not know the fleet's master key, or has a layout that is too far
                from the fleet's.
            RedisAwayError: Redis did not answer.
        """
        await execute("HSETNX", self._key, "fingerprint", self._fingerprints[0])
        await execute("HSETNX", self._key, "layout", str(self.layout))
        current, layout = await execute("HMGET", self._key, "fingerprint", "layout")
        known = [compare_digest(current.decode(), own) for own in self._fingerprints]
        if not any(known):
            raise FleetError(
                "the gateways that share this Redis have another master key; configure the same "
                "gateway.master_key (or name both in gateway.master_keys to replace one by the "
                "other), or another state.prefix or database"
            )
        found = int(layout)
        if not OLDEST <= found <= self.layout + 1:
            raise FleetError(
                f"the state in Redis has layout {found}, and this version works with "
                f"{OLDEST} to {self.layout + 1}; upgrade one version at a time"
            )
        if found < self.layout:
            await execute("HSET", self._key, "layout", str(self.layout))
        if not known[0]:
            await execute("HSET", self._key, "fingerprint", self._fingerprints[0])
