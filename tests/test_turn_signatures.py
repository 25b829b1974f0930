"""Which keys and algorithms JWTs for TURN may be signed with."""

import json
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from odingw.errors import TokenError, TokenFault
from odingw.tokens import base64url
from odingw.turn.auth import MAX_TRIES, TurnAuthenticator
from odingw.turn.keys import static_key
from tests.jwk_server import (
    TYPES,
    private_key,
    public_jwk,
    sign,
    spki,
    spki_text,
)
from tests.turn_auth_case import (
    CLAIMS,
    KINDS,
    SETTINGS,
    AuthTestCase,
    Keys,
    compact,
    hmac_token,
    keys_of,
    raw_token,
    settings,
)


class SignatureTests(AuthTestCase):
    def test_every_algorithm(self) -> None:
        for algorithm, kind in KINDS.items():
            authenticator = TurnAuthenticator(settings(kind))
            token = sign(CLAIMS, algorithm)
            self.assertEqual(self.accepted(authenticator, token), CLAIMS)
            self.refused(
                authenticator, sign(CLAIMS, algorithm, 1), TokenFault.SIGNATURE, about=algorithm
            )

    def test_examples_of_the_rfcs(self) -> None:
        """RFC 7515, A.2 and A.3; RFC 8037, A.4."""
        payload = (
            b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            b"cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        )
        for algorithm, jwk, message, signature in (
            (
                "RS256",
                {
                    "kty": "RSA",
                    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
                    "4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47"
                    "soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R"
                    "2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8N"
                    "Aco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
                    "e": "AQAB",
                },
                b"eyJhbGciOiJSUzI1NiJ9." + payload,
                b"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc"
                b"_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO"
                b"75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eO"
                b"kHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkW"
                b"ywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                "ES256",
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                },
                b"eyJhbGciOiJFUzI1NiJ9." + payload,
                b"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP"
                b"3-Kg6NU1Q",
            ),
            (
                "EdDSA",
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                },
                b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                b"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpA"
                b"r_MuM0KAg",
            ),
        ):
            [key] = keys_of(jwk)
            raw = base64url.decode(signature)
            self.assertTrue(key.verify(algorithm, message, raw), algorithm)
            self.assertFalse(key.verify(algorithm, message + b".", raw), algorithm)
            # What ends the signature and what begins the message must not be mixed up.
            self.assertFalse(key.verify(algorithm, message[1:], raw + message[:1]), algorithm)
            self.assertFalse(key.verify(algorithm, raw[-1:] + message, raw[:-1]), algorithm)

    def test_a_key_verifies_nothing_else(self) -> None:
        """Whatever a caller asks of it."""
        for kind, algorithms in TYPES.items():
            key = static_key(spki_text(kind), "")
            for algorithm in ("none", "HS256", "ES512", "ES256K", "", *KINDS):
                if algorithm not in algorithms:
                    self.assertFalse(key.verify(algorithm, b"", b""), (kind, algorithm))

    def test_changed_tokens(self) -> None:
        for algorithm, kind in KINDS.items():
            authenticator = TurnAuthenticator(settings(kind))
            first, second, third = sign(CLAIMS, algorithm).split(".")
            other = compact({}, {**CLAIMS, "sub": "mallory"}).split(".")[1]
            signature = base64url.decode(third.encode())
            for changed in (
                b"",
                b"\0",
                bytes(len(signature)),
                b"\xff" * len(signature),
                signature[:-1],
                signature + b"\0",
                signature[::-1],
                signature[:10] + bytes([signature[10] ^ 1]) + signature[11:],
            ):
                token = f"{first}.{second}.{base64url.encode(changed).decode()}"
                self.refused(authenticator, token, TokenFault.SIGNATURE, about=(algorithm, changed))
            self.refused(authenticator, f"{first}.{other}.{third}", TokenFault.SIGNATURE)

    def test_several_keys_side_by_side(self) -> None:
        authenticator = TurnAuthenticator(
            replace(
                SETTINGS,
                public_keys=tuple(
                    spki_text(kind, number) for kind in ("RSA", "P-256") for number in (0, 1)
                ),
            ),
            [Keys(public_jwk("RSA", 2), public_jwk("P-256", 2, kid="a"))],
        )
        for algorithm in ("RS256", "PS512", "ES256"):
            for number in (0, 1, 2):
                self.accepted(authenticator, sign(CLAIMS, algorithm, number))

    def test_a_key_id_narrows_the_choice_among_jwks(self) -> None:
        """Keys without an id always count, as those of the configuration have none."""
        keys = Keys(
            public_jwk("P-256", 0, kid="a"),
            public_jwk("P-256", 1, kid="b"),
            public_jwk("P-256", 2),
        )
        keys.resting = True
        authenticator = TurnAuthenticator(
            replace(SETTINGS, public_keys=(spki_text("P-256", 3),)), [keys]
        )
        for number, kid, good in (
            (0, "a", True),
            (0, "b", False),
            (0, "c", False),
            (1, "b", True),
            (1, "a", False),
            (2, "a", True),
            (2, "c", True),
            (3, "a", True),
            (3, "c", True),
        ):
            token = sign(CLAIMS, "ES256", number, kid=kid)
            if good:
                self.accepted(authenticator, token)
            else:
                self.refused(authenticator, token, TokenFault.SIGNATURE, about=(number, kid))

    def test_two_keys_of_the_same_id(self) -> None:
        """Of several sets, or of one."""
        sets = [
            Keys(public_jwk("P-256", 0, kid="a"), public_jwk("RSA", 0, kid="a")),
            Keys(public_jwk("P-256", 1, kid="a")),
        ]
        authenticator = TurnAuthenticator(SETTINGS, sets)
        for algorithm, number in (("ES256", 0), ("RS256", 0), ("ES256", 1)):
            self.accepted(authenticator, sign(CLAIMS, algorithm, number, kid="a"))

    def test_a_token_is_not_tried_with_any_number_of_keys(self) -> None:
        jwks = [public_jwk("Ed25519", number, kid=f"{number}") for number in range(MAX_TRIES + 1)]
        keys = Keys(*jwks)
        keys.resting = True
        authenticator = TurnAuthenticator(settings("Ed25519"), [keys])
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES - 1))
        self.refused(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES), TokenFault.SIGNATURE)
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", MAX_TRIES, kid=f"{MAX_TRIES}"))
        keys.keys = keys_of(*jwks[1:])
        self.accepted(authenticator, sign(CLAIMS, "EdDSA", 0))

    def test_no_keys(self) -> None:
        authenticator = TurnAuthenticator(SETTINGS)
        message = self.refused(authenticator, sign(CLAIMS, "RS256"), TokenFault.UNKNOWN_KEY)
        self.assertEqual(message, "not authorized")

    def test_the_key_id_that_is_missing_is_named(self) -> None:
        authenticator = TurnAuthenticator(SETTINGS)
        for kid, shown in (
            ("zz", "no configured key has the kid zz"),
            ("a\x1b\nb", r"no configured key has the kid a\x1b\nb"),
            ("k" * 900, f"no configured key has the kid {'k' * 79}…"),
            (None, "the token names no kid, and there is no key to try it with"),
        ):
            token = sign(CLAIMS, "RS256", kid=kid) if kid else sign(CLAIMS, "RS256")
            error: Any = self.assertRaises(TokenError, authenticator.authenticate, token, 0)
            self.assertEqual(shown, error.detail)


class ConfusionTests(AuthTestCase):
    """Attacks on the choice of algorithm and key (RFC 8725, section 2)."""

    def test_no_signature_at_all(self) -> None:
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(settings(*TYPES), [keys])
        for name in ("none", "None", "NONE", "nOnE", "", "null"):
            for signature in (b"", b"\0" * 64):
                for header in ({"alg": name}, {"alg": name, "kid": "a"}, {"alg": name, "kid": "b"}):
                    token = compact(header, CLAIMS, signature)
                    self.refused(authenticator, token, TokenFault.ALGORITHM, about=header)
        self.assertEqual(keys.asked, 0)

    def test_a_public_key_as_secret(self) -> None:
        for kind in TYPES:
            keys = Keys(public_jwk(kind, kid="a"))
            authenticator = TurnAuthenticator(settings(kind), [keys])
            key = private_key(kind).public_key()
            pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            der = spki(private_key(kind))
            jwk = json.dumps(public_jwk(kind, kid="a")).encode()
            secrets = (pem, pem.strip(), der, b64encode(der), jwk, b"")
            for secret in secrets:
                for algorithm in ("HS256", "HS384", "HS512"):
                    for header in ({}, {"kid": "a"}):
                        token = hmac_token(secret, algorithm, **header)
                        self.refused(authenticator, token, TokenFault.ALGORITHM, about=kind)

    def test_an_algorithm_of_another_type_of_key(self) -> None:
        names = ("ES512", "ES256K", "Ed25519", "Ed448", "RS1", "RSA-OAEP", "A128KW", *KINDS)
        for kind, algorithms in TYPES.items():
            keys = Keys(public_jwk(kind, kid="a"))
            keys.resting = True
            for authenticator in (
                TurnAuthenticator(settings(kind)),
                TurnAuthenticator(SETTINGS, [keys]),
            ):
                [own, *_] = algorithms
                signature = base64url.decode(sign(CLAIMS, own).rpartition(".")[2].encode())
                for name in names:
                    if name not in (*algorithms, kind):
                        token = compact({"alg": name, "kid": "a"}, CLAIMS, signature)
                        self.refused(authenticator, token, TokenFault.ALGORITHM, about=(kind, name))

    def test_an_algorithm_that_the_jwk_excludes(self) -> None:
        keys = Keys(public_jwk("RSA", kid="a", alg="RS256"))
        keys.resting = True
        authenticator = TurnAuthenticator(SETTINGS, [keys])
        self.accepted(authenticator, sign(CLAIMS, "RS256", kid="a"))
        for algorithm in ("RS512", "PS256"):
            token = sign(CLAIMS, algorithm, kid="a")
            self.refused(authenticator, token, TokenFault.ALGORITHM, about=algorithm)

    def test_a_key_that_the_token_brings_along(self) -> None:
        own = public_jwk("RSA", 1)
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(settings("P-256"), [keys])
        certificate = b64encode(spki(private_key("RSA", 1))).decode()
        headers: list[dict[str, Any]] = [
            {"jwk": own},
            {"jwk": {**own, "kid": "a"}},
            {"jku": "http://127.0.0.1:1/keys"},
            {"x5u": "http://127.0.0.1:1/certificate"},
            {"x5c": [certificate]},
            {"kid": json.dumps(own)},
            {"kid": "../../dev/null"},
        ]
        for header in headers:
            token = sign(CLAIMS, "RS256", 1, **{"kid": "a", **header})
            waiting = self.waiting(authenticator, token)
            keys.fetched(public_jwk("RSA", kid="a"))
            self.failureResultOf(waiting, TokenError)

    def test_such_members_are_not_read(self) -> None:
        """Some issuers put the URL of their keys into each token."""
        keys = Keys(public_jwk("RSA", kid="a"))
        authenticator = TurnAuthenticator(SETTINGS, [keys])
        headers: dict[str, Any] = {
            "jku": "https://issuer.test/keys",
            "x5t": "abc",
            "x5c": ["abc"],
            "cty": "JWT",
        }
        self.accepted(authenticator, sign(CLAIMS, "RS256", kid="a", **headers))
        self.assertEqual(keys.asked, 0)

    def test_critical_extensions(self) -> None:
        authenticator = TurnAuthenticator(settings("Ed25519"))
        self.accepted(authenticator, raw_token({"alg": "EdDSA", "b64": True}, CLAIMS))
        headers: list[dict[str, Any]] = [
            {"crit": ["exp"], "exp": 1},
            {"crit": ["b64"], "b64": False},
            {"crit": ["b64"], "b64": True},
            {"crit": []},
            {"crit": None},
            {"b64": False},
        ]
        for header in headers:
            token = raw_token({"alg": "EdDSA", **header}, CLAIMS)
            self.refused(authenticator, token, TokenFault.MALFORMED, about=header)


class FormTests(AuthTestCase):
    def setUp(self) -> None:
        self.authenticator = TurnAuthenticator(settings("Ed25519"))

    def test_segments(self) -> None:
        token = sign(CLAIMS, "EdDSA")
        first, second, third = token.split(".")
        for text in (
            "",
            ".",
            "..",
            "...",
            first,
            f"{first}.{second}",
            f"{token}.",
            f".{token}",
            f"{token}.{third}",
            f"{token} ",
            f" {token}",
            f"{token}=",
            f"{first}=.{second}.{third}",
            f"{first}\n.{second}.{third}",
            f"{first}.{second}==.{third}",
            f"{first}.{second}.{third[:-1]}",
            f"{first}.{second}.{third[:-2]}B",
            f"{first}.{second}.+{third[1:]}",
            f"é{token}",
            f"{token}\ud800",
        ):
            self.refused(self.authenticator, text, TokenFault.MALFORMED, about=text)

    def test_headers(self) -> None:
        for header in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'"EdDSA"',
            b"{}",
            b'{"kid": "a"}',
            b'{"alg": null}',
            b'{"alg": ["EdDSA"]}',
            b'{"alg": "EdDSA", "kid": 1}',
            b'{"alg": "EdDSA", "kid": [1]}',
            b'{"alg": "EdDSA"} {}',
            b'{"alg": "EdDSA", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        ):
            self.refused(self.authenticator, compact(header, CLAIMS), TokenFault.MALFORMED)

    def test_claims_that_are_no_object(self) -> None:
        for payload in (b"", b"{", b"[]", b"null", b"5", b'{"exp": NaN}', b"[" * 5000, b"\xff"):
            token = raw_token({"alg": "EdDSA"}, payload)
            self.refused(self.authenticator, token, TokenFault.CLAIMS, about=payload)
