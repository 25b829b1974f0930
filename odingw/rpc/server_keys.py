"""The keys of ODIN servers, derived from the gateway's master key and never stored."""

from typing import Final

from odingw.tokens import SecretKey, server_key

_KEPT: Final = 10_000


class ServerKeys:
    """Derives servers' keys, and keeps those in use at hand.

    Args:
        master_key: the gateway's master key.
    """

    def __init__(self, master_key: bytes) -> None:
        self._master_key = master_key
        self._keys: dict[str, SecretKey] = {}

    def __getitem__(self, address: str) -> SecretKey:
        """Return the key of the server with this address."""
        key = self._keys.get(address)
        if key is None:
            if len(self._keys) >= _KEPT:
                del self._keys[next(iter(self._keys))]
            key = self._keys[address] = server_key(self._master_key, address)
        return key
