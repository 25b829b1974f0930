"""``/turn`` over HTTP, against a real process: who gets credentials, and what they look like."""

import base64
import hashlib
import hmac
import http.server
import json
import signal
import threading
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.process import ACCESS_KEY, GatewayProcess, customer, token
from tests.test_gateway import metric
from tests.test_http import ProcessCase

SECRET = "north is a good place"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def spki(key: Any) -> str:
    """Return a key's public half as the configuration wants it."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def claims(**more: object) -> dict[str, object]:
    return {"sub": "alice", "exp": int(time.time()) + 60, **more}


def rs256(**more: object) -> str:
    return jwt.encode(claims(**more), RSA_KEY, "RS256")


BEFORE = (
    '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
    'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
    f'[turn]\nsecret_keys = ["{SECRET}", "old secret of last year"]\n'
    'turn_uris = ["turn.testserver.com", "turns:turn.testserver.com?transport=tcp"]\n'
    'stun_uris = ["stun.testserver.com"]\nwatch_servers = false\nuser_claim = "sub"\n'
    f'public_keys = ["{spki(RSA_KEY)}", "{spki(EC_KEY)}"]\n'
)


class TurnCase(ProcessCase):
    before = BEFORE

    def ask(
        self,
        query: str = "",
        authorization: str | None = None,
        method: str = "GET",
        path: str = "/turn",
    ) -> tuple[int, Any, Any]:
        headers = {"Authorization": authorization} if authorization else {}
        status, got, body = self.gateway.request(method, path + query, None, headers)
        return status, got, json.loads(body) if body else None


class CredentialTests(TurnCase):
    def test_the_reply(self) -> None:
        before = int(time.time())
        status, headers, reply = self.ask(authorization=f"Bearer {rs256()}")
        self.assertEqual((200, "application/json"), (status, headers["Content-Type"]))
        self.assertEqual("*", headers["Access-Control-Allow-Origin"])
        self.assertEqual("no-store", headers["Cache-Control"])
        expiry, _, user = reply["username"].partition(":")
        self.assertEqual("alice", user)
        self.assertTrue(before + 43200 <= int(expiry) <= time.time() + 43200)
        digest = hmac.digest(SECRET.encode(), reply["username"].encode(), hashlib.sha1)
        self.assertEqual(base64.b64encode(digest).decode(), reply["password"])
        uris = ["turn:turn.testserver.com", "turns:turn.testserver.com?transport=tcp"]
        self.assertEqual(
            {
                "username": reply["username"],
                "password": reply["password"],
                "ttl": 43200,
                "uris": uris,
                "iceServers": [
                    {
                        "urls": uris,
                        "username": reply["username"],
                        "credential": reply["password"],
                    },
                    {"urls": ["stun:stun.testserver.com"]},
                ],
            },
            reply,
        )

    def test_every_way_to_bring_a_token(self) -> None:
        good = rs256()
        for query, authorization, path, method in (
            ("", f"Bearer {good}", "/turn", "GET"),
            ("", f"bearer {good}", "/turn/", "POST"),
            ("", good, "/turn", "GET"),
            (f"?jwt={good}", None, "/turn", "GET"),
            (f"?service=turn&username=bob&key={good}", None, "/", "GET"),
            (f"?service=turn&key={good}", None, "/turn", "GET"),
        ):
            status, _, reply = self.ask(query, authorization, method, path)
            self.assertEqual(200, status, (query, authorization))
            self.assertTrue(reply["username"].endswith(":alice"), reply)
        status, _, _ = self.ask(f"?jwt={good}", "Bearer wrong")
        self.assertEqual(401, status, "the header wins")

    def test_the_drafts_username_counts_where_nothing_else_names_one(self) -> None:
        nameless = rs256(sub="")
        _, _, reply = self.ask(f"?service=turn&username=bob%20x&key={nameless}", path="/")
        self.assertTrue(reply["username"].endswith(":bob%20x"), reply)
        _, _, reply = self.ask(f"?username=bob&jwt={nameless}")
        self.assertRegex(reply["username"], r"^\d+:user-[A-Za-z0-9]{16}$")

    def test_a_shorter_life_on_demand(self) -> None:
        _, _, reply = self.ask("?ttl=600", f"Bearer {rs256()}")
        self.assertEqual(600, reply["ttl"])
        for wrong in ("0", "-1", "x", "43201", "1.5"):
            status, headers, reply = self.ask(f"?ttl={wrong}", f"Bearer {rs256()}")
            self.assertEqual((400, -32602), (status, reply["error"]["code"]), wrong)
            self.assertIn("ttl", reply["error"]["data"]["detail"])
            self.assertEqual("*", headers["Access-Control-Allow-Origin"])

    def test_preflight(self) -> None:
        status, headers, _ = self.ask(method="OPTIONS")
        self.assertEqual(200, status)
        self.assertIn("GET, POST", headers["Access-Control-Allow-Methods"])
        self.assertEqual("authorization", headers["Access-Control-Allow-Headers"])

    def test_issued_credentials_are_counted(self) -> None:
        before = metric(self.gateway, "odingw_turn_credentials_issued_total")
        self.ask(authorization=f"Bearer {rs256()}")
        after = metric(self.gateway, "odingw_turn_credentials_issued_total")
        self.assertEqual(1, after - before)


class RefusedTests(TurnCase):
    def test_who_gets_nothing(self) -> None:
        now = int(time.time())
        public = base64.b64decode(spki(RSA_KEY))
        confused = jwt.encode(claims(), "x" * 64, "HS256").rpartition(".")[0]
        digest = hmac.digest(public, confused.encode(), hashlib.sha256)
        signed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        stranger = rsa.generate_private_key(65537, 2048)
        embedded = {"jwk": {"kty": "oct", "k": "eA"}, "jku": "https://evil.example/jwks"}
        for name, text in (
            ("nothing", None),
            ("none", jwt.encode(claims(), "", "none")),
            ("HS256 with the public key", f"{confused}.{signed}"),
            ("another key", jwt.encode(claims(), stranger, "RS256")),
            ("an embedded key", jwt.encode(claims(), stranger, "RS256", embedded)),
            ("unknown crit", jwt.encode(claims(), RSA_KEY, "RS256", {"crit": ["x"], "x": 1})),
            ("expired", jwt.encode(claims(exp=now - 120), RSA_KEY, "RS256")),
            ("not yet", jwt.encode(claims(nbf=now + 120), RSA_KEY, "RS256")),
            ("garbage", "a.b.c"),
            ("an access key's token", token("room", subject="turn")),
        ):
            status, headers, reply = self.ask(authorization=f"Bearer {text}" if text else None)
            self.assertEqual((401, -32001), (status, reply["error"]["code"]), name)
            self.assertTrue(headers["WWW-Authenticate"], name)
            self.assertEqual("*", headers["Access-Control-Allow-Origin"], name)

    def test_the_root_is_no_turn_service_by_itself(self) -> None:
        self.check_error((405, -32005), "GET", "/")
        self.check_error((405, -32005), "DELETE", "/turn")
        self.check_error((404, -32004), "GET", "/turnip")


class ClaimAndOriginTests(TurnCase):
    """Claims as issuers name them, and pages of several origins."""

    before = BEFORE.replace('user_claim = "sub"', 'user_claim = "https://app.example/uid"') + (
        'required_scopes = ["turn"]\nscope_claims = ["realm_access.roles", "cognito:groups"]\n'
        'allowed_origin = ["https://a.example", "HTTPS://B.example:8443", "null"]\n'
    )

    def user(self, value: object) -> tuple[int, str]:
        """Return the status and, of a good answer, the user."""
        roles = {"realm_access": {"roles": ["turn"]}}
        text = rs256(**roles, **{"https://app.example/uid": value})
        status, _, reply = self.ask(authorization=f"Bearer {text}")
        return status, reply["username"].partition(":")[2] if status == 200 else ""

    def test_users(self) -> None:
        for value, user in (("alice", "alice"), (12345, "12345"), (5.0, "5"), (-1, "-1")):
            self.assertEqual((200, user), self.user(value))
        self.assertRegex(self.user("")[1], r"^user-[A-Za-z0-9]{16}$")

    def test_what_names_no_user(self) -> None:
        verified = 'odingw_jwt_verifications_total{outcome="ok"}'
        before = metric(self.gateway, verified)
        for value, kind in ((["a"], "a list"), (True, "a boolean"), (None, "null"), (1.5, "no ex")):
            self.assertEqual((401, ""), self.user(value))
            self.gateway.wait_for(f"token claim https://app.example/uid is {kind}")
        self.assertEqual(before, metric(self.gateway, verified))

    def test_scopes(self) -> None:
        for more, expected in (
            ({"realm_access": {"roles": ["turn"]}}, 200),
            ({"cognito:groups": ["x", "turn"]}, 200),
            ({"scope": "turn", "scp": ["turn"]}, 401),
            ({"realm_access": ["turn"]}, 401),
        ):
            self.assertEqual(expected, self.ask(authorization=f"Bearer {rs256(**more)}")[0], more)

    def test_who_asks_is_named(self) -> None:
        """Also in errors and preflights; a cache keeps the answers apart."""
        bearer = f"Bearer {rs256(**{'cognito:groups': ['turn']})}"
        for origin, allowed in (
            ("https://a.example", True),
            ("https://b.example:8443", True),
            ("null", True),
            ("https://b.example", False),
            ("https://a.example.evil", False),
            ("http://a.example", False),
            ("*", False),
            (None, False),
        ):
            named = {"Origin": origin} if origin else {}
            for method, more, status in (
                ("GET", {"Authorization": bearer}, 200),
                ("GET", {}, 401),
                ("OPTIONS", {}, 200),
            ):
                got = self.gateway.request(method, "/turn", None, {**named, **more})
                self.assertEqual(status, got[0])
                self.assertEqual(
                    origin if allowed else None, got[1]["Access-Control-Allow-Origin"], origin
                )
                self.assertEqual("Origin", got[1]["Vary"])


class AccessKeyTests(TurnCase):
    before = BEFORE + "access_keys = true\n"

    def test_a_customers_token_that_names_turn(self) -> None:
        status, _, reply = self.ask(authorization=f"Bearer {token('room', subject='turn')}")
        self.assertEqual(200, status, reply)
        for subject in ("connect", ["Connect"], []):
            status, _, _ = self.ask(authorization=f"Bearer {token('room', subject=subject)}")
            self.assertEqual(401, status, subject)

    def test_not_a_servers_and_not_once_the_customer_is_gone(self) -> None:
        text = token("room", subject="turn")
        self.assertEqual(200, self.ask(authorization=f"Bearer {text}")[0])
        self.gateway.configure("")
        assert self.gateway.process is not None
        self.gateway.process.send_signal(signal.SIGHUP)
        self.gateway.wait_for("0 customers")
        self.assertEqual(401, self.ask(authorization=f"Bearer {text}")[0])
        self.gateway.configure(customer(key=ACCESS_KEY))
        self.gateway.process.send_signal(signal.SIGHUP)
        self.gateway.wait_for("1 customer")


class UnconfiguredTests(ProcessCase):
    def test_503(self) -> None:
        for method in ("GET", "POST"):
            self.check_error((503, -32053), method, "/turn")


class TurnRestFileTests(SynchronousTestCase):
    """The existing server's JSON file, as it is."""

    def write(self, gateway: GatewayProcess, **members: object) -> None:
        document = {
            "secretKey": SECRET,
            "allowedOrigin": "https://app.example",
            "ttl": 100,
            "forceUser": "everybody",
            "ignoreJWT": False,
            "userClaim": "sub",
            "requiredJWTScope": ["turn", "voice"],
            "jwkURIS": [],
            "jwtPublicKeys": [spki(RSA_KEY)],
            "turnURIS": ["turn.testserver.com"],
            "stunURIS": [],
            **members,
        }
        (gateway.folder / "turnrest.json").write_text(json.dumps(document))

    def test_used_watched_and_kept_when_it_breaks(self) -> None:
        gateway = GatewayProcess(customer())
        gateway.options = ("--turn-config", str(gateway.folder / "turnrest.json"))
        self.write(gateway)
        gateway.start()
        self.addCleanup(gateway.stop)

        def ask(**more: object) -> tuple[int, Any, Any]:
            headers = {"Authorization": f"Bearer {rs256(**more)}"}
            status, got, body = gateway.request("GET", "/turn", None, headers)
            return status, got, json.loads(body)

        self.assertEqual(401, ask()[0], "no scope")
        status, headers, reply = ask(scp=["voice"])
        self.assertEqual((200, 100), (status, reply["ttl"]))
        self.assertEqual("https://app.example", headers["Access-Control-Allow-Origin"])
        self.assertEqual(["turn:turn.testserver.com"], reply["uris"])
        self.assertTrue(reply["username"].endswith(":everybody"), "whatever the token says")
        self.assertIn("userClaim: without effect, as forcedUser is everybody's", gateway.log)
        self.write(gateway, ttl=200)
        gateway.wait_for("the TURN settings have changed")
        self.assertEqual(200, ask(scope="turn other")[2]["ttl"])
        (gateway.folder / "turnrest.json").write_text("{")
        gateway.wait_for("the TURN settings stay as they were")
        self.assertEqual(200, ask(scope="turn")[2]["ttl"])
        self.assertNotIn(SECRET, gateway.log)


class KeySetTests(SynchronousTestCase):
    """Keys from a JWK set."""

    def test_its_keys_count_and_unknown_ids_cause_no_storm(self) -> None:
        keys = {"first": RSA_KEY, "second": rsa.generate_private_key(65537, 2048)}
        published = ["first"]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = [
                    {**jwt.algorithms.RSAAlgorithm.to_jwk(keys[kid].public_key(), True), "kid": kid}
                    for kid in published
                ]
                body = json.dumps({"keys": found}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        issuer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        self.addCleanup(issuer.server_close)
        self.addCleanup(issuer.shutdown)
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[turn]\nsecret_keys = ["{SECRET}"]\nturn_uris = ["a.test"]\nwatch_servers = false\n'
            f'jwk_urls = ["http://127.0.0.1:{issuer.server_address[1]}/jwks"]\n',
        ).start()
        self.addCleanup(gateway.stop)

        def ask(kid: str) -> int:
            text = jwt.encode(claims(), keys[kid], "RS256", {"kid": kid})
            return gateway.request("GET", "/turn", None, {"Authorization": f"Bearer {text}"})[0]

        self.assertEqual(200, ask("first"))
        self.assertEqual(401, ask("second"))
        self.assertGreaterEqual(metric(gateway, "odingw_jwks_fetches_total"), 1)
        published.append("second")
        self.assertEqual(401, ask("second"), "not twice within 30 seconds")


class UnknownKeyTests(TurnCase):
    """Where access keys alone count."""

    before = BEFORE.partition("[turn]")[0] + (
        '[turn]\nsecret_keys = ["a secret of some length"]\nturn_uris = ["turn:t.example"]\n'
        "access_keys = true\nwatch_servers = false\n"
    )

    def test_it_is_named_to_the_caller_and_in_the_log(self) -> None:
        for kid in ("zz", "yy"):
            token = jwt.encode(claims(), RSA_KEY, "RS256", {"kid": kid})
            status, _, body = self.ask(authorization=f"Bearer {token}")
            self.assertEqual(401, status)
            self.assertIn(f"no configured key has the kid {kid}", str(body))
        log = self.gateway.wait_for("a token for TURN is refused: no configured key has the kid")
        self.assertEqual(1, log.count("no configured key has the kid"), "a line a minute")
