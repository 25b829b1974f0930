"""The keys of ODIN servers, derived from the gateway's master keys and never stored.

While a master key is replaced there are several. A server takes its key once, when it starts, so
which one it has is a matter of when it last asked; the grid remembers that by the key's id.
"""

from collections.abc import Callable, Set
from itertools import islice
from typing import Final, Protocol

from odingw.tokens import KeyType, SecretKey, is_key_id_of, server_key

_KEPT: Final = 10_000

_DERIVED: Final = 20
"""Servers whose keys are derived to look for one id: deriving them all would stop everybody."""


class Attached(Protocol):
    """Which servers there are; a part of :class:`odingw.grid.store.GridStore`."""

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the server that was given the key with this id."""

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""


class ServerKeys:
    """Derives servers' keys, and keeps those in use at hand.

    Args:
        master_key: from which the keys are derived that servers are given.
        older: further master keys, of which servers may still have keys.
        on_missing: told the address of a server whose key comes from none of these.
    """

    def __init__(
        self,
        master_key: bytes,
        *older: bytes,
        on_missing: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._master_keys = (master_key, *older)
        self._on_missing = on_missing
        self._keys: dict[str, tuple[SecretKey, ...]] = {}
        self._address_of: dict[str, str] = {}
        self._signing: dict[str, SecretKey] = {}

    def __getitem__(self, address: str) -> SecretKey:
        """Return the key that the server with this address is given when it asks."""
        return self._of(address)[0]

    def knows(self, address: str, kid: str) -> bool:
        """Tell whether the key with this id, of the server with this address, comes from here."""
        return self._listed(address, kid) is not None

    def signing(self, address: str, kid: str) -> SecretKey:
        """Return the key to sign a server's room tokens with.

        Args:
            address: the server's.
            kid: id of the key that it was last given. If that comes from a master key that is not
                known here, the first one has to do.
        """
        key = self._signing.get(kid)
        if key is None:
            if len(self._signing) >= _KEPT:
                del self._signing[next(iter(self._signing))]
            key = self._listed(address, kid)
            if key is None:
                self._on_missing(address)
                key = self[address]
            self._signing[kid] = key
        return key

    def verifying(self, kid: str, attached: Attached) -> SecretKey | None:
        """Return the key of an attached server by its id, whichever master key it comes from.

        The key that a server is known to have is found at once; another one of its keys perhaps
        only at a later try, if there are many servers that have not reported here.
        """
        address = attached.address_of_key(kid)
        if address is None:
            if not is_key_id_of(kid, KeyType.DERIVED):
                return None
            addresses = attached.addresses()
            if kid not in self._address_of:
                for unseen in islice(addresses - self._keys.keys(), _DERIVED):
                    self._of(unseen)
            address = self._address_of.get(kid)
            if address is None or address not in addresses:
                return None
        return self._listed(address, kid)

    def _listed(self, address: str, kid: str) -> SecretKey | None:
        return next((key for key in self._of(address) if key.kid == kid), None)

    def _of(self, address: str) -> tuple[SecretKey, ...]:
        keys = self._keys.get(address)
        if keys is None:
            if len(self._keys) >= _KEPT:
                for key in self._keys.pop(next(iter(self._keys))):
                    self._address_of.pop(key.kid, None)
            keys = tuple(server_key(master_key, address) for master_key in self._master_keys)
            self._keys[address] = keys
            for key in keys:
                self._address_of[key.kid] = address
        return keys
