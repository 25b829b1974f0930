"""Tokens as clients sent them to a running gateway, and what became of them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import TokenError
from odingw.tokens import (
    Policy,
    PublicJwk,
    SecretKey,
    decode_master_key,
    load_public_jwk,
    server_key,
    verify,
)

RECORDED: Final = Path(__file__).parent / "data" / "client_api.jsonl"
NOW: Final = 1_700_000_000
POLICY: Final = Policy(leeway=300, require_expiry=False)

CUSTOMER_KEYS: Final = {
    "AQ7aVmK+pI1l": "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4",
    "AWEyJ6M+hb1l": "utKRAF8mh4CApmckdVkkpJ3Y6rwijbPfX8SC3N8zW6k",
    "AS/SFQ8vLw4d": "hbpwECksrfP0fiPv-lMd8xvvHByZQAJS3jhMVxSmvcI",
    "AZvhoCg3O2Nr": "ZZ2W3mmfJRyRDgtfB6rTWzvXQ-pZCBiNF_0cACF44D0",
    "ATpQJeUaWhBz": "gXghuQy6iMKQSlx4Wkb3Py_C_BRITPpuEWv3fG_4Yvo",
}
MASTER_KEY: Final = "VGhpcyBpcyBhIHN1cGVyIHNlY3JldCBtYXN0ZXIga2V5IQ=="
# What these tokens lack is asked for by who uses them, not by what a good token is.
NOT_THE_TOKENS_FAULT: Final = ("server_signed_token_cid_missing", "server_signed_token_nsp_missing")


def recorded() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, token and expected answer of every step that sent a token in the usual way."""
    with RECORDED.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line)
            for step in scenario["steps"]:
                auth = step["send"].get("auth")
                if auth and auth["scheme"].lower() == "bearer " and not auth["suffix"]:
                    yield scenario["name"], auth, step["expect"]


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def token_of(auth: dict[str, Any]) -> str:
    """Make a recorded token anew; a claim ``{"$now": n}`` is n seconds from now."""
    raw_header, raw_claims = auth.get("raw_header"), auth.get("raw_claims")
    header = compact(auth["header"]) if raw_header is None else raw_header.encode()
    if raw_claims is None:
        payload = compact(
            {
                name: NOW + value["$now"] if isinstance(value, dict) and "$now" in value else value
                for name, value in auth["claims"].items()
            }
        )
    else:
        payload = raw_claims.replace("{{now}}", str(NOW)).encode()
    body = f"{segment(header)}.{segment(payload)}"
    seed = base64.b64decode(auth["seed_b64"])
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(body.encode())
    kind = auth["sig"]
    if kind == "missing":
        return body
    return f"{body}.{third_segment(kind, signature)}"


def third_segment(kind: str, signature: bytes) -> str:
    changed_s = signature[:-20] + bytes([signature[-20] ^ 1]) + signature[-19:]
    return {
        "valid": segment(signature),
        "empty": "",
        "zero": segment(bytes(64)),
        "flip": segment(bytes([signature[0] ^ 1]) + signature[1:]),
        "flip_s": segment(changed_s),
        "short": segment(signature[:63]),
        "long": segment(signature + b"\0"),
        "garbage": "!!!not*base64!!!",
        "extra_seg": segment(signature) + ".x",
        "std_b64": base64.b64encode(b"\xfb\xff" + signature[2:]).decode(),
    }[kind]


class RecordedTokenTests(SynchronousTestCase):
    def test_recorded(self) -> None:
        """Every recorded token is good, or refused, as recorded, with the recorded message."""
        keys: dict[str, PublicJwk | SecretKey] = {}
        for kid, x in CUSTOMER_KEYS.items():
            jwk = {"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": x}
            keys[kid] = load_public_jwk(jwk)
        server = server_key(decode_master_key(MASTER_KEY), "sfu1.test:4433")
        keys[server.kid] = server

        refused = good = 0
        for name, auth, expected in recorded():
            try:
                verify(token_of(auth), keys.get, now=NOW, policy=POLICY)
            except TokenError as error:
                refused += 1
                self.assertEqual(expected["status"], 401, (name, error.message))
                message = expected["error"].get("message", error.message)
                self.assertEqual(error.message, message, name)
            else:
                good += 1
                if name not in NOT_THE_TOKENS_FAULT:
                    self.assertNotEqual(expected["status"], 401, name)
        self.assertGreater(refused, 50)
        self.assertGreater(good, 50)
