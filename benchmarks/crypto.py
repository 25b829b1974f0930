"""What the cryptography of a Connect costs alone: to verify a signature and to make one."""

import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.bindings import crypto_sign, crypto_sign_open

from benchmarks.customers import Customers

_KEYS: Final = 100
_ROUNDS: Final = 5


def bare_crypto(count: int) -> dict[str, float]:
    """Return the CPU microseconds of one verification and one signature, by library.

    Keys are loaded beforehand. The best of five rounds counts: what disturbs only adds.

    Args:
        count: how many signatures to verify and to make in a round.
    """
    customers = Customers(_KEYS)
    messages, signatures = [], []
    for number, token in enumerate(customers.tokens(count, _KEYS)):
        message = token.rpartition(".")[0].encode()
        messages.append(message)
        signatures.append(customers.keys[number % _KEYS].sign(message))
    seeds = [key.seed for key in customers.keys]
    publics = [key.public_key for key in customers.keys]
    sodium_secrets = [seed + public for seed, public in zip(seeds, publics, strict=True)]
    openssl_secrets = [Ed25519PrivateKey.from_private_bytes(seed) for seed in seeds]
    openssl_publics = [Ed25519PublicKey.from_public_bytes(public) for public in publics]

    def sodium() -> None:
        for number, (message, signature) in enumerate(zip(messages, signatures, strict=True)):
            crypto_sign_open(signature + message, publics[number % _KEYS])
            crypto_sign(message, sodium_secrets[number % _KEYS])

    def openssl() -> None:
        for number, (message, signature) in enumerate(zip(messages, signatures, strict=True)):
            openssl_publics[number % _KEYS].verify(signature, message)
            openssl_secrets[number % _KEYS].sign(message)

    return {
        "libsodium (PyNaCl)": _best(sodium) / count * 1e6,
        "OpenSSL (cryptography)": _best(openssl) / count * 1e6,
    }


def _best(work: Callable[[], None]) -> float:
    def once() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return min(once() for _ in range(_ROUNDS))
