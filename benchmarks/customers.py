"""Made-up customers with many access keys, and tokens of their users."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odingw.tokens import SecretKey, TokenGenerator

TOKENS: Final = 20_000
ROOMS: Final = 2_000
KEYS: Final = 1_000
SERVERS: Final = 50

_KEYS_PER_CUSTOMER: Final = 10
_LIFETIME: Final = 86_400
_LIMIT: Final = 1_000_000


class Customers:
    """Customers with ten access keys each, the same in every run.

    They have limits, which are never reached, for limits cost time.

    Args:
        keys: how many access keys they have together.
    """

    def __init__(self, keys: int = KEYS) -> None:
        self.keys = [SecretKey(hashlib.sha256(b"%d" % number).digest()) for number in range(keys)]

    def documents(self) -> bytes:
        """Return the JSON list of customers that the gateway reads."""
        documents = [
            {
                "id": f"customer-{first // _KEYS_PER_CUSTOMER}",
                "maxPeers": _LIMIT,
                "maxRooms": _LIMIT,
                "accessKeys": [
                    {"publicKey": {"kid": jwk.kid, "kty": jwk.kty, "crv": jwk.crv, "x": jwk.x}}
                    for jwk in (
                        key.public_jwk() for key in self.keys[first : first + _KEYS_PER_CUSTOMER]
                    )
                ],
            }
            for first in range(0, len(self.keys), _KEYS_PER_CUSTOMER)
        ]
        return json.dumps(documents, separators=(",", ":")).encode()

    def tokens(self, count: int, rooms: int, prefix: str = "room") -> Iterator[str]:
        """Yield distinct tokens for Connect.

        Args:
            count: how many.
            rooms: over how many rooms they are spread; a room's users share an access key.
            prefix: of the rooms' names.
        """
        now = time.time()
        generators = [TokenGenerator(key) for key in self.keys]
        for number in range(count):
            room = number % rooms
            yield generators[room % len(generators)].create_token(
                f"{prefix}-{room}",
                f"user-{number}",
                now=now,
                lifetime=_LIFETIME,
                audience="gateway",
            )


def write_tokens(path: Path, tokens: Iterator[str]) -> Path:
    """Write tokens to a file, one a line, and return the file."""
    path.write_text("".join(f"{token}\n" for token in tokens), "ascii")
    return path
