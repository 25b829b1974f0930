"""What an issuer of tokens can make the gateway compute is bounded."""

import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from odingw.errors import KeyMaterialError, TokenError
from odingw.turn.auth import MAX_SECONDS, MAX_TRIES, TurnAuthenticator
from odingw.turn.keys import VerifyingKey, jwk_set, static_key
from tests.turn_auth_case import SETTINGS, AuthTestCase, Keys

NOW: Final = 1_700_000_000.0


def rsa_jwk(bits: int, exponent: int, **more: str) -> dict[str, str]:
    """Return an RSA key that nobody has the other half of."""
    modulus = secrets.randbits(bits) | 1 << (bits - 1) | 1
    numbers = {"n": modulus, "e": exponent}
    return {"kty": "RSA", **more} | {
        name: urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()
        for name, value in numbers.items()
    }


class SignatureWorkTests(AuthTestCase):
    """What verifying one token costs at most, whatever an issuer has in its JWK set."""

    def test_exponents_and_sizes(self) -> None:
        jwks = [
            rsa_jwk(2048, 65537, kid="good"),
            rsa_jwk(2048, 3, kid="good too"),
            rsa_jwk(8192, 2**32 - 1, kid="slow"),
            rsa_jwk(2048, 2**32 + 1, kid="wide"),
            rsa_jwk(8192, 2**64 - 1, kid="wider"),
            rsa_jwk(8192, 2**8000 + 1, kid="widest"),
            rsa_jwk(8200, 65537, kid="large"),
            rsa_jwk(16384, 65537, kid="larger"),
            rsa_jwk(2040, 65537, kid="small"),
            rsa_jwk(2048, 1, kid="one"),
            rsa_jwk(2048, 65536, kid="even"),
        ]
        found = jwk_set(json.dumps({"keys": jwks}).encode(), "the set")
        self.assertEqual(["good", "good too", "slow"], [key.kid for key in found.keys])
        for name, line in zip(jwks[3:], found.problems, strict=True):
            self.assertIn(f"({name['kid']!r}) of the set is skipped: ", line)

    def test_configured_keys_are_judged_alike(self) -> None:
        modulus = secrets.randbits(2048) | 1 << 2047 | 1
        der = (
            RSAPublicNumbers(2**32 + 1, modulus)
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )

        self.assertRaises(KeyMaterialError, static_key, b64encode(der).decode(), "")

    def tried(self, keys: list[VerifyingKey], algorithm: str) -> float:
        """Return the cost of the keys that a token which names none is tried with."""
        spent: list[float] = []

        def verify(self: VerifyingKey, *_: object) -> bool:
            spent.append(self.cost)
            return False

        self.patch(VerifyingKey, "verify", verify)
        source = Keys()
        source.keys = tuple(keys)
        source.resting = True
        header = urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
        authenticator = TurnAuthenticator(SETTINGS, [source])
        self.assertRaises(TokenError, authenticator.authenticate, f"{header}.e30.{'A' * 86}", NOW)
        self.assertLessEqual(len(spent), MAX_TRIES)
        return sum(spent)

    def test_the_work_for_a_token_that_names_no_key(self) -> None:
        for keys, algorithm in (
            ([rsa_jwk(8192, 2**32 - 1)] * 100, "PS512"),
            ([rsa_jwk(8192, 65537)] * 100, "RS256"),
            ([rsa_jwk(2048, 2**32 - 1)] * 100, "RS256"),
        ):
            found = jwk_set(json.dumps({"keys": keys}).encode(), "").keys
            self.assertEqual(100, len(found))
            cost = self.tried(list(found), algorithm)
            self.assertGreater(cost, 0)
            self.assertLessEqual(cost, MAX_SECONDS)

    def test_usual_keys_are_all_tried(self) -> None:
        keys = jwk_set(json.dumps({"keys": [rsa_jwk(4096, 65537)] * MAX_TRIES}).encode(), "").keys
        cost = self.tried(list(keys), "RS256")
        self.assertAlmostEqual(MAX_TRIES * keys[0].cost, cost)
