"""What the tests of TURN's authentication share."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import TokenError, TokenFault
from odingw.tokens import base64url
from odingw.turn.auth import TurnAuthenticator
from odingw.turn.keys import VerifyingKey, jwk_set
from odingw.turn.settings import TurnSettings
from tests.jwk_server import (
    TYPES,
    Jwk,
    document,
    private_key,
    spki_text,
)

NOW = 1_700_000_000
CLAIMS = {"sub": "alice", "exp": NOW + 3600}
SETTINGS = TurnSettings(turn_uris=("turn:turn.test",), leeway=60)

KINDS = {algorithm: kind for kind, algorithms in TYPES.items() for algorithm in algorithms}


def settings(*kinds: str, **members: Any) -> TurnSettings:
    """Settings with a static key of each of these types."""
    return replace(SETTINGS, public_keys=tuple(map(spki_text, kinds)), **members)


def keys_of(*jwks: Jwk) -> tuple[VerifyingKey, ...]:
    return jwk_set(document(jwks), "a set").keys


def compact(header: object, payload: object, signature: bytes = b"") -> str:
    """A JWS of anything."""
    segments = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    return b".".join(map(base64url.encode, (*segments, signature))).decode()


def hmac_token(secret: bytes, algorithm: str = "HS256", **header: object) -> str:
    """A token that is signed with a secret."""
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    unsigned = compact({"alg": algorithm, **header}, CLAIMS).rpartition(".")[0]
    signature = hmac.digest(secret, unsigned.encode(), digest)
    return f"{unsigned}.{base64url.encode(signature).decode()}"


def raw_token(header: Mapping[str, object], payload: object, number: int = 0) -> str:
    """A token with any header, signed as EdDSA."""
    unsigned = compact(header, payload).rpartition(".")[0]
    signature = private_key("Ed25519", number).sign(unsigned.encode())
    return f"{unsigned}.{base64url.encode(signature).decode()}"


class Keys:
    """A JWK set whose changes the test makes."""

    def __init__(self, *jwks: Jwk) -> None:
        self.keys = keys_of(*jwks)
        self.asked = 0
        self.fetches: list[Deferred[float]] = []
        self.resting = False

    def lookup(self) -> Deferred[float] | None:
        self.asked += 1
        if self.resting:
            return None
        self.fetches.append(Deferred())
        return self.fetches[-1]

    def fetched(self, *jwks: Jwk, seconds: float = 0) -> None:
        """End the oldest fetch."""
        self.keys = keys_of(*jwks)
        self.fetches.pop(0).callback(seconds)


class AuthTestCase(SynchronousTestCase):
    def accepted(
        self, authenticator: TurnAuthenticator, token: str, now: float = NOW
    ) -> Mapping[str, Any]:
        claims = authenticator.authenticate(token, now)
        self.assertNotIsInstance(claims, Deferred)
        return claims  # type: ignore[return-value]  # just checked

    def refused(
        self,
        authenticator: TurnAuthenticator,
        token: str,
        fault: TokenFault,
        now: float = NOW,
        about: object = None,
    ) -> str:
        """The message of the refusal, which must repeat no part of the token."""
        error = self.assertRaises(TokenError, authenticator.authenticate, token, now)
        self.assertEqual(error.fault, fault, f"{about}: {error.message}")
        for part in token.split("."):
            self.assertFalse(part and part in error.message, about)
        return str(error.message)

    def waiting(self, authenticator: TurnAuthenticator, token: str) -> Deferred[Any]:
        outcome = authenticator.authenticate(token, NOW)
        assert isinstance(outcome, Deferred)
        self.assertNoResult(outcome)
        return outcome
