"""JWK sets in the shapes that widespread issuers write."""

from typing import Any

from tests.jwk_server import Jwk, public_jwk

_RSA: dict[str, Any] = {"kid": "rsa", "use": "sig", "alg": "RS256"}


def dotnet() -> list[Jwk]:
    """System.Text.Json of Microsoft's ``JsonWebKey``: all members, null or empty where unused."""
    names = "alg crv d dp dq e k keyId keyOps kid kty n oth p q qi use x x5t x5tS256 x5u y"
    every: Jwk = dict.fromkeys(names.split())
    lists: Jwk = {"additionalData": {}, "key_ops": [], "x5c": [], "oth": []}
    more: Jwk = {"keySize": 2048.0, "hasPrivateKey": False, "cryptoProviderFactory": {}}
    ec = {**public_jwk("P-256", kid="ec"), "use": "", "d": ""}
    return [{**every, **lists, **more, **jwk} for jwk in (public_jwk("RSA", **_RSA), ec)]


def java() -> list[Jwk]:
    """Nimbus, and encoders of Java that pad and write signed numbers."""
    rsa = public_jwk("RSA", **{**_RSA, "exp": 1.9e9, "iat": 1.7e9, "x5t#S256": "abc"})
    ec = public_jwk("P-256", kid="ec", alg="ES256", key_ops=["verify"])
    padded = {name: value + "=" * (-len(value) % 4) for name, value in rsa.items() if name in "ne"}
    return [{**rsa, **padded}, {**ec, "x": ec["x"] + "=", "y": ec["y"] + "="}]


def keycloak() -> list[Jwk]:
    """Keycloak: a key for encryption beside those for signatures."""
    certificate = {"x5c": ["MIIC"], "x5t": "abc", "x5t#S256": "abc"}
    return [
        {**public_jwk("RSA", 1, kid="encrypts", use="enc", alg="RSA-OAEP"), **certificate},
        {**public_jwk("RSA", **_RSA), **certificate},
        public_jwk("P-256", kid="ec", use="sig", alg="ES256"),
        public_jwk("Ed25519", kid="ed", use="sig", alg="EdDSA"),
    ]


def auth0() -> list[Jwk]:
    """Auth0: with the certificate of each key."""
    rsa = public_jwk("RSA", **_RSA)
    return [{**rsa, "x5t": "abc", "x5c": ["MIIC"]}, public_jwk("P-256", kid="ec", use="sig")]


SHAPES = {"dotnet": dotnet, "java": java, "keycloak": keycloak, "auth0": auth0}
