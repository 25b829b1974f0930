"""What the cryptography of a Connect costs alone: to verify a signature and to make one."""

import statistics
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.bindings import crypto_sign, crypto_sign_open

from benchmarks.customers import Customers
from benchmarks.gateway import SERVER_CORE, on_core

SODIUM: Final = "libsodium (PyNaCl)"
OPENSSL: Final = "OpenSSL (cryptography)"

REFERENCE: Final = 77.0
"""Microseconds that libsodium needs for both on the machine for which the targets were set."""

_KEYS: Final = 100
_COUNT: Final = 1_500


class BareCrypto:
    """Signatures to verify and messages to sign, of 100 keys; all is loaded beforehand.

    Args:
        count: how many signatures to verify and to make at a time.
    """

    def __init__(self, count: int = _COUNT) -> None:
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
        """Return the CPU microseconds of one verification and one signature, by library.

        It is measured on the servers' core, which should have nothing else to do meanwhile.
        """
        count = len(self._messages)
        with on_core(SERVER_CORE):
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


class Pace:
    """How fast the machine is, which may change from one minute to the next."""

    def __init__(self) -> None:
        self._crypto = BareCrypto()
        self._before = 0.0

    def begin(self) -> None:
        """See how fast it is before something is measured."""
        self._before = self._libsodium()

    def scaled(self, cost: float) -> float:
        """Return what something would cost at the reference's pace.

        Args:
            cost: what it cost since ``begin``, or since the last call of this; in any unit.
        """
        before, self._before = self._before, self._libsodium()
        return cost * REFERENCE / statistics.fmean((before, self._before))

    def _libsodium(self) -> float:
        return self._crypto.measure()[SODIUM]


SCALED_NOTE: Final = (
    f"scaled: the same on a machine where libsodium needs {REFERENCE:g} µs to verify an Ed25519 "
    "signature and to make one, which was measured before and after each of {rounds} rounds. All "
    "figures are medians of the rounds."
)


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
