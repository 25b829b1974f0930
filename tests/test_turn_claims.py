"""Claims of a token, wherever its issuer writes them: the user, and what it may be used for."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import Turn
from odingw.errors import TokenError, TokenFault
from odingw.turn.claims import find_claim, scopes_of, user_of

SCOPE_CLAIMS = Turn().scope_claims

KEYCLOAK: Mapping[str, Any] = {
    "sub": "f:1:alice",
    "realm_access": {"roles": ["turn", "offline_access"]},
    "resource_access": {"account": {"roles": ["view"]}, "my.app": {"roles": ["relay"]}},
}


class FindTests(SynchronousTestCase):
    def test_names_and_paths(self) -> None:
        for claims, name, expected in (
            ({"https://app.example/user": "alice"}, "https://app.example/user", "alice"),
            ({"cognito:groups": ["a"]}, "cognito:groups", ["a"]),
            (KEYCLOAK, "realm_access.roles", ["turn", "offline_access"]),
            (KEYCLOAK, "resource_access.my.app.roles", ["relay"]),
            ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
            ({"a": {"b.c": 1, "b": {"c": 2}}}, "a.b.c", 1),
            ({"a": {"x": 1}, "a.b": {"c": 2}}, "a.b.c", 2),
            ({"a": {"b": None}}, "a.b", None),
            ({"a": None}, "a", None),
            ({"": {"": 1}}, ".", 1),
            ({}, "a", UNSET),
            ({"a": "text"}, "a.b", UNSET),
            ({"a": ["b"]}, "a.0", UNSET),
            ({"a": None}, "a.b", UNSET),
            ({"a": {"b": 1}}, "a", {"b": 1}),
            ({"a": {"b": 1}}, "a.", UNSET),
            ({"a": {"b": 1}}, ".a.b", UNSET),
            ({"A": 1}, "a", UNSET),
            (KEYCLOAK, "realm_access.Roles", UNSET),
        ):
            self.assertEqual(find_claim(claims, name), expected, (claims, name))


class UserTests(SynchronousTestCase):
    def test_what_names_a_user(self) -> None:
        for value, user in (
            ("alice", "alice"),
            ("", None),
            ("0", "0"),
            (0, "0"),
            (12345, "12345"),
            (-7, "-7"),
            (2**64, str(2**64)),
            (5.0, "5"),
            (-0.0, "0"),
            (float(2**53 - 1), str(2**53 - 1)),
        ):
            self.assertEqual(user_of({"uid": value}, "uid"), user, value)
            self.assertEqual(user_of({"a": {"uid": value}}, "a.uid"), user, value)
        self.assertIsNone(user_of({"sub": "alice"}, "uid"))

    def test_what_does_not(self) -> None:
        """Two integers that are one float would be one user."""
        for value, kind in (
            (None, "null"),
            (True, "a boolean"),
            (["alice"], "a list"),
            ({"name": "alice"}, "an object"),
            (1.5, "no exact integer"),
            (float(2**53), "no exact integer"),
            (1e300, "no exact integer"),
        ):
            error = self.assertRaises(TokenError, user_of, {"a": {"uid": value}}, "a.uid")
            self.assertEqual(error.fault, TokenFault.CLAIMS)
            self.assertEqual(
                error.message, f"token claim a.uid is {kind}; it must be a text or an integer"
            )


class ScopeTests(SynchronousTestCase):
    def check(
        self, claims: Mapping[str, Any], found: set[str], names: Iterable[str] = SCOPE_CLAIMS
    ) -> None:
        self.assertEqual(scopes_of(claims, names), found, (claims, names))

    def test_lists_and_texts(self) -> None:
        for claims, found in (
            ({}, set()),
            ({"scp": ["a", "b"]}, {"a", "b"}),
            ({"scp": "a b"}, {"a", "b"}),
            ({"scopes": ["a"]}, {"a"}),
            ({"scopes": " a  b "}, {"a", "b"}),
            ({"scope": "a b"}, {"a", "b"}),
            ({"scope": ["a", "b c"]}, {"a", "b c"}),
            ({"scp": ["a"], "scopes": ["b"], "scope": "c"}, {"a", "b", "c"}),
            ({"scp": None, "scopes": 5, "scope": {"a": 1}}, set()),
            ({"scp": [None, 5, ["a"], "b"]}, {"b"}),
            ({"Scope": "a", "roles": ["a"]}, set()),
        ):
            self.check(claims, found)

    def test_other_claims(self) -> None:
        self.check(KEYCLOAK, {"turn", "offline_access"}, ["realm_access.roles"])
        self.check(
            KEYCLOAK,
            {"view", "relay"},
            [f"resource_access.{n}.roles" for n in ("account", "my.app")],
        )
        self.check({"cognito:groups": ["a"], "scope": "b"}, {"a"}, ["cognito:groups"])
        self.check({"https://app.example/roles": ["a"]}, {"a"}, ["https://app.example/roles"])
