"""Customers as they come from JSON, for tests."""

from typing import Any, Final

from odingw.customers import Customer
from odingw.tokens import load_public_jwk

X: Final = "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4"
OTHER_X: Final = "utKRAF8mh4CApmckdVkkpJ3Y6rwijbPfX8SC3N8zW6k"
SECRET: Final = "whuNSscDwRXrZMAZhzAO0eFDzA3eVeZwq0W039K90wA"


def jwk(kid: str = "k1", x: str = X) -> dict[str, Any]:
    return {"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": x}


def access_key(kid: str = "k1", x: str = X, **more: object) -> dict[str, Any]:
    return {"publicKey": jwk(kid, x), **more}


def document(name: str = "acme", *keys: object, **more: object) -> dict[str, Any]:
    return {"id": name, "maxPeers": 100, "maxRooms": None, "accessKeys": list(keys), **more}


def without(member: str) -> dict[str, Any]:
    return {key: value for key, value in document().items() if key != member}


RAW: Final = load_public_jwk(jwk()).public_key
ACME: Final = Customer("acme", 100, None)
