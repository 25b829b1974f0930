"""What the cryptography of a Connect costs alone: to verify a signature and to make one."""

import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.bindings import crypto_sign, crypto_sign_open

from benchmarks.customers import Customers

SODIUM: Final = "libsodium (PyNaCl)"
OPENSSL: Final = "OpenSSL (cryptography)"

_KEYS: Final = 100


class BareCrypto:
    """Signatures to verify and messages to sign, of 100 keys; all is loaded beforehand.

    Args:
        count: how many signatures to verify and to make at a time.
    """

    def __init__(self, count: int) -> None:
        customers = Customers(_KEYS)
        self._messages, self._signatures = [], []
        for number, token in enumerate(customers.tokens(count, _KEYS)):
            message = token.rpartition(".")[0].encode()
            self._messages.append(message)
            self._signatures.append(customers.keys[number % _KEYS].sign(message))
        seeds = [key.seed for key in customers.keys]
        self._publics = [key.public_key for key in customers.keys]
        self._sodium_secrets = [a + b for a, b in zip(seeds, self._publics, strict=True)]
        self._openssl_secrets = [Ed25519PrivateKey.from_private_bytes(seed) for seed in seeds]
        self._openssl_publics = [Ed25519PublicKey.from_public_bytes(key) for key in self._publics]

    def measure(self) -> dict[str, float]:
        """Return the CPU microseconds of one verification and one signature, by library."""
        count = len(self._messages)
        return {
            SODIUM: _seconds(self._sodium) / count * 1e6,
            OPENSSL: _seconds(self._openssl) / count * 1e6,
        }

    def _sodium(self) -> None:
        publics, secrets = self._publics, self._sodium_secrets
        for number, message in enumerate(self._messages):
            crypto_sign_open(self._signatures[number] + message, publics[number % _KEYS])
            crypto_sign(message, secrets[number % _KEYS])

    def _openssl(self) -> None:
        publics, secrets = self._openssl_publics, self._openssl_secrets
        for number, message in enumerate(self._messages):
            publics[number % _KEYS].verify(self._signatures[number], message)
            secrets[number % _KEYS].sign(message)


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
