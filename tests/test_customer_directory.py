"""Lists of customers, read and put together."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import AccessKeyConfig, CustomerConfig
from odingw.customers import (
    Customer,
    CustomerKey,
    Directory,
    combined,
    directory,
    static_directory,
)
from odingw.tokens import load_public_jwk
from tests.customer_documents import (
    ACME,
    OTHER_X,
    RAW,
    SECRET,
    access_key,
    document,
    jwk,
    without,
)


class DirectoryTests(SynchronousTestCase):
    def test_a_good_list(self) -> None:
        got = directory(
            [
                document("acme", access_key("k1"), access_key("k2", OTHER_X, namespace="other")),
                document("bare", maxPeers=0, maxRooms=3, plan="gold"),
            ]
        )
        other = load_public_jwk(jwk("k2", OTHER_X)).public_key
        self.assertEqual(
            got,
            Directory(
                {
                    "k1": CustomerKey("k1", RAW, "acme", ACME),
                    "k2": CustomerKey("k2", other, "other", ACME),
                },
                {"acme": ACME, "bare": Customer("bare", 0, 3)},
                namespaces=frozenset({"acme", "other"}),
            ),
        )

    def test_a_namespace_of_null_is_the_customers_id(self) -> None:
        got = directory([document("acme", access_key(namespace=None))])
        self.assertEqual(got.keys["k1"].namespace, "acme")

    def test_customers_that_are_refused(self) -> None:
        limit = "must be a whole number, 0 or more, or null"
        for wrong, problem in (
            ("acme", "customer 1 of the list is refused: it is not an object"),
            ({}, "customer 1 of the list is refused: id must be a text that is not empty"),
            (
                document(""),
                "customer 1 of the list is refused: id must be a text that is not empty",
            ),
            ({**document(), "id": 7}, "customer 1 of the list is refused: id must be a text"),
            (
                without("maxPeers"),
                "customer 'acme' is refused: maxPeers is absent (null is no limit)",
            ),
            (
                without("maxRooms"),
                "customer 'acme' is refused: maxRooms is absent (null is no limit)",
            ),
            (without("accessKeys"), "customer 'acme' is refused: accessKeys must be a list"),
            (document(maxPeers=-1), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxPeers=1.5), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxPeers=True), f"customer 'acme' is refused: maxPeers {limit}"),
            (document(maxRooms="5"), f"customer 'acme' is refused: maxRooms {limit}"),
            (document(accessKeys={}), "customer 'acme' is refused: accessKeys must be a list"),
            (
                document("x" * 500, maxRooms=[5]),
                f"customer '{'x' * 80}…' is refused: maxRooms {limit}",
            ),
        ):
            got = directory([wrong, document("good", access_key())])
            self.assertEqual((list(got.customers), list(got.keys)), (["good"], ["k1"]), wrong)
            self.assertEqual(len(got.problems), 1)
            self.assertTrue(got.problems[0].startswith(problem), got.problems)

    def test_the_later_of_two_customers_with_one_id_is_refused(self) -> None:
        got = directory([document("acme", access_key()), document("acme", access_key("k2"))])
        self.assertEqual(list(got.keys), ["k1"])
        self.assertEqual(
            got.problems, ("customer 'acme' is refused: an earlier customer has that id",)
        )

    def test_a_broken_key_is_skipped_and_named(self) -> None:
        for wrong, name, cause in (
            (None, "access key 1", "it is not an object"),
            ({}, "access key 1", "public key: a JWK expected"),
            (access_key(namespace=5), "access key 1 ('k1')", "namespace must be a text"),
            (access_key(namespace=5), "access key 1 ('k1')", "namespace must be a text"),
            ({"publicKey": {**jwk(), "kid": 5}}, "access key 1", "public key: kid must be"),
            (
                {"publicKey": {**jwk(), "x": SECRET[:-1]}},
                "access key 1 ('k1')",
                "public key: x must",
            ),
            (
                {"publicKey": {**jwk(), "kty": SECRET}},
                "access key 1 ('k1')",
                "public key: kty must",
            ),
        ):
            got = directory([document("acme", wrong, access_key("good"))])
            self.assertEqual(list(got.keys), ["good"], wrong)
            [problem] = got.problems
            self.assertTrue(
                problem.startswith(f"{name} of customer 'acme' is skipped: {cause}"), problem
            )
            self.assertNotIn(SECRET[:-1], problem)

    def test_names_that_nobody_sees(self) -> None:
        for text, cause in (
            ("\0", "must not have U+0000, which nobody sees"),
            ("\ufeffx", "must not have U+FEFF, which nobody sees"),
            ("x\u200b", "must not have U+200B, which nobody sees"),
            (" ", "must not be white space alone"),
        ):
            for wrong, said in (
                (document(text), f"is refused: id {cause}"),
                (document("acme", access_key(text)), f"is skipped: its kid {cause}"),
                (document("acme", access_key(namespace=text)), f"is skipped: namespace {cause}"),
            ):
                found = directory([wrong])
                self.assertEqual({}, found.keys)
                self.assertEqual(1, len(found.problems))
                self.assertTrue(found.problems[0].endswith(said), found.problems)
        self.assertEqual((), directory([document("Käse & Co", access_key("my key"))]).problems)

    def test_a_key_id_that_two_customers_claim_is_refused_for_both(self) -> None:
        got = directory(
            [
                document("a", access_key("k1"), access_key("mine")),
                document("b", access_key("k1"), access_key("k1")),
                document("c", access_key("k1", OTHER_X)),
            ]
        )
        self.assertEqual(list(got.keys), ["mine"])
        self.assertEqual(list(got.customers), ["a", "b", "c"])
        self.assertEqual(got.refused, frozenset({"k1"}))
        self.assertEqual(
            got.problems, ("key id 'k1' is refused: customers 'a' and 'b' and 'c' claim it",)
        )

    def test_a_key_id_twice_in_one_customer(self) -> None:
        same = directory([document("acme", access_key(), access_key(namespace="acme"))])
        self.assertEqual((list(same.keys), same.problems), (["k1"], ()))
        for second in (access_key(x=OTHER_X), access_key(namespace="other")):
            got = directory([document("acme", access_key(), second)])
            self.assertEqual((got.keys, got.refused), ({}, frozenset({"k1"})))
            self.assertEqual(
                got.problems,
                (
                    "key id 'k1' is refused: customer 'acme' has it for two different keys or "
                    "namespaces",
                ),
            )

    @settings(deadline=None)
    @given(
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(("id", "maxPeers", "maxRooms", "accessKeys", "publicKey")),
                        inner,
                    )
                ),
            )
        )
    )
    def test_any_list_is_read(self, documents: list[object]) -> None:
        """Each document is a customer or has a problem."""
        got = directory(documents)
        self.assertGreaterEqual(len(got.customers) + len(got.problems), len(documents))

    def test_the_configurations_customers(self) -> None:
        got = static_directory(
            [
                CustomerConfig(
                    id="acme",
                    max_peers=100,
                    access_keys=(AccessKeyConfig(public_key=jwk()),),
                ),
                CustomerConfig(
                    id="b",
                    max_rooms=0,
                    access_keys=(
                        AccessKeyConfig(namespace="n", public_key=jwk("k2")),
                        AccessKeyConfig(public_key={}),
                    ),
                ),
            ]
        )
        customer = Customer("b", None, 0)
        self.assertEqual(got.customers, {"acme": ACME, "b": customer})
        self.assertEqual(
            got.keys,
            {
                "k1": CustomerKey("k1", RAW, "acme", ACME),
                "k2": CustomerKey("k2", RAW, "n", customer),
            },
        )
        self.assertEqual(len(got.problems), 1)


class CombinedTests(SynchronousTestCase):
    def test_both_are_let_in(self) -> None:
        got = combined(
            directory([document("a", access_key("k1")), 1]),
            directory([document("b", access_key("k2")), 2]),
        )
        self.assertEqual((list(got.keys), list(got.customers)), (["k1", "k2"], ["a", "b"]))
        self.assertEqual(len(got.problems), 2)

    def test_the_configurations_customer_wins(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("a", access_key("k2"), maxPeers=5), document("b")])
        got = combined(static, fetched)
        self.assertEqual((got.keys, list(got.customers)), (static.keys, ["a", "b"]))
        self.assertEqual(got.customers["a"].max_peers, 100)
        [problem] = got.problems
        self.assertIn("customer 'a' of the source is refused", problem)

    def test_the_configurations_key_wins(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("b", access_key("k1", OTHER_X), access_key("k2"))])
        got = combined(static, fetched)
        self.assertEqual(list(got.keys), ["k1", "k2"])
        self.assertEqual(got.keys["k1"].customer.id, "a")
        [problem] = got.problems
        self.assertIn("key id 'k1' of customer 'b' of the source is refused", problem)

    def test_a_key_that_the_configuration_refuses_is_not_the_sources(self) -> None:
        static = directory([document("a", access_key("k1")), document("b", access_key("k1"))])
        got = combined(static, directory([document("c", access_key("k1"))]))
        self.assertEqual((got.keys, got.refused), ({}, frozenset({"k1"})))

    def test_a_key_that_the_source_refuses_stays_the_configurations(self) -> None:
        static = directory([document("a", access_key("k1"))])
        fetched = directory([document("b", access_key("k1")), document("c", access_key("k1"))])
        got = combined(static, fetched)
        self.assertEqual((got.keys, got.refused), (static.keys, frozenset()))
