"""``odingw turn-test``, with a real gateway and a real coturn."""

import atexit
import functools
import socket
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from odingw.cli.allocation import TurnFailed, prove
from odingw.cli.turn_test import tls_context
from odingw.turn.stun import (
    Attribute,
    Kind,
    Message,
    Method,
    decode,
    encode,
    long_term_key,
    pack_address,
)
from odingw.turn.uris import parse_uri
from tests.coturn import HOST, Coturn
from tests.ports import free_port
from tests.process import ACCESS_KEY, GatewayProcess, customer, token
from tests.terminal import Ended, assert_one_line, odingw, shared_gateway

SECRET = "a secret of the TURN servers"


@functools.cache
def shared_coturn() -> Coturn:
    """Return a coturn that runs for as long as this process."""
    coturn = Coturn(SECRET, tls=True)
    atexit.register(coturn.remove)
    return coturn.start()


class TurnTestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.coturn = shared_coturn()
        self.gateway = self.started(*self.coturn.uris)

    def started(self, *uris: str, secret: str = SECRET) -> GatewayProcess:
        turn = (
            f'[turn]\nsecret_keys = ["{secret}"]\nturn_uris = {list(uris)}\n'
            f'stun_uris = ["stun:{HOST}:{self.coturn.port}"]\n'
            'access_keys = true\nuser_claim = "uid"\nwatch_servers = false\n'
        )
        return shared_gateway(f"{customer()}{turn}")

    def turn_test(self, *options: str, gateway: GatewayProcess | None = None) -> Ended:
        port = (gateway or self.gateway).port
        return odingw(
            *("turn-test", "--url", f"http://127.0.0.1:{port}", *options),
            ODINGW_ACCESS_KEY=ACCESS_KEY.text,
        )

    def test_every_transport(self) -> None:
        """An allocation over UDP, TCP and TLS, and a Binding."""
        ended = self.turn_test("--insecure", "--user", "alice")
        self.assertEqual((0, ""), (ended.status, ended.err), ended)
        self.assertRegex(ended.out, r"^credentials of \d+:alice, good for 12h00m\n\n")
        for uri in self.coturn.uris:
            self.assertRegex(
                ended.out, rf"(?m)^{uri.replace('?', '.')} +ok +[\d.]+ ms +{HOST}:\d+$"
            )
        self.assertRegex(ended.out, r"(?m)^stun:.* +ok +[\d.]+ ms +- \(STUN\)$")

    def test_json(self) -> None:
        document = self.turn_test("--insecure", "--json", "--token", token("", subject="turn"))
        servers = document.document["servers"]
        self.assertEqual({"ok"}, {one["status"] for one in servers})
        (first,) = (one for one in servers if one["uri"] == self.coturn.uris[0])
        self.assertRegex(first["relayed"], rf"^{HOST}:\d+$")
        self.assertRegex(first["mapped"], rf"^{HOST}:\d+$")
        self.assertGreater(first["rtt"], 0)
        self.assertIn("Coturn", first["software"])

    def test_certificates_count(self) -> None:
        ended = self.turn_test("--json")
        self.assertEqual(1, ended.status)
        self.assertIn("1 of 4 servers failed", ended.err)
        (failed,) = (one for one in ended.document["servers"] if one["status"] == "failed")
        self.assertTrue(failed["uri"].startswith("turns:"))
        self.assertIn("certificate", failed["error"])

    def test_what_does_not_work(self) -> None:
        """A server that is not there, one that cannot be tested, and a wrong secret."""
        dtls = f"turns:{HOST}:{self.coturn.tls_port}?transport=udp"
        dead = f"turn:{HOST}:{free_port()}?transport=tcp"
        gateway = self.started(self.coturn.uris[0], dead, dtls, secret="another secret, wrong")
        ended = self.turn_test(gateway=gateway)
        self.assertEqual(1, ended.status)
        assert_one_line(ended)
        self.assertIn("2 of 4 servers failed", ended.err)
        self.assertRegex(ended.out, r"(?m)^turn:\S+ +failed +- +error 401 ")
        self.assertIn("the TURN server has another", " ".join(ended.out.split()))
        self.assertRegex(ended.out, r"(?m)^turn:\S+ +failed +- +connection refused$")
        self.assertRegex(ended.out, r"(?m)^turns:\S+ +skipped +- +DTLS is not tested$")
        servers = self.turn_test("--json", gateway=gateway).document["servers"]
        self.assertEqual([401, None], [one["code"] for one in servers if "code" in one][:2])

    def test_servers_that_send_on(self) -> None:
        """A coturn that balances load by ALTERNATE-SERVER; to itself, it would go on for ever."""
        to = f"{HOST}:{self.coturn.port}"
        there = f"{HOST}:{self.coturn.tls_port}"
        gateway, balancer = self.balanced(to, there)
        ended = self.turn_test("--insecure", gateway=gateway)
        self.assertEqual((0, ""), (ended.status, ended.err), ended)
        for uri, other in zip(balancer.uris, (to, to, there), strict=True):
            self.assertRegex(
                ended.out,
                rf"(?m)^{uri.replace('?', '.')} +ok +[\d.]+ ms +{HOST}:\d+ \(sent on to {other}\)$",
            )
        servers = self.turn_test("--insecure", "--json", gateway=gateway).document["servers"]
        self.assertEqual([to, to, there], [one["alternate"] for one in servers[:3]])

    def test_servers_that_send_on_to_none(self) -> None:
        dead = f"{HOST}:{free_port()}"
        gateway, first = self.balanced(dead, dead)
        ended = self.turn_test("--insecure", gateway=gateway)
        self.assertEqual(1, ended.status)
        self.assertRegex(ended.out, rf"(?m) failed +- +sent on to {dead}: connection refused$")
        second = f"{HOST}:{first.port}"
        gateway, _ = self.balanced(second, second)
        ended = self.turn_test("--insecure", gateway=gateway)
        self.assertRegex(ended.out, rf"(?m) failed +- +sent on to {second}, which sends on too$")

    def balanced(self, to: str, tls: str) -> tuple[GatewayProcess, Coturn]:
        """Start a TURN server that sends on, and a gateway that hands it out."""
        options = [f"--alternate-server={to}", f"--tls-alternate-server={tls}"]
        balancer = Coturn(SECRET, tls=True, options=options)
        self.addCleanup(balancer.remove)
        return self.started(*balancer.start().uris), balancer

    def test_no_credentials(self) -> None:
        ended = self.turn_test("--token", "x")
        self.assertEqual((1, ""), (ended.status, ended.out))
        assert_one_line(ended)
        self.assertIn("HTTP status 401", ended.err)
        ended = odingw(
            "turn-test", "--url", f"http://127.0.0.1:{self.gateway.admin}/monitor", "--token", "x"
        )
        self.assertEqual(1, ended.status)
        assert_one_line(ended)


class OddServer:
    """A UDP server that answers the n-th datagram with what a function makes of it."""

    def __init__(self, *answers: Any) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.port: int = self._socket.getsockname()[1]
        self.heard: list[Message] = []
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers: tuple[Any, ...]) -> None:
        with self._socket:
            for answer in answers:
                data, address = self._socket.recvfrom(65536)
                self.heard.append(decode(data))
                for reply in answer(self.heard[-1]):
                    self._socket.sendto(reply, address)

    def wait(self) -> None:
        """Wait until all answers are given."""
        self._thread.join(30)


def error(code: int, *attributes: tuple[Attribute, bytes]) -> Any:
    """Return what answers with an error response."""

    def answer(request: Message) -> list[bytes]:
        value = bytes([0, 0, code // 100, code % 100]) + b"no"
        members = ((Attribute.ERROR_CODE, value), *attributes)
        return [encode(Message(Kind.ERROR, request.method, request.transaction, members))]

    return answer


CHALLENGE = ((Attribute.REALM, b"realm"), (Attribute.NONCE, b"nonce"))


def granted(request: Message) -> list[bytes]:
    """Answer as a server does to which the credentials are good."""
    relayed = pack_address(("192.0.2.1", 4000), request.transaction)
    members = ((Attribute.XOR_RELAYED_ADDRESS, relayed), (Attribute.LIFETIME, bytes(4)))
    key = long_term_key("user", "realm", "password")
    return [encode(Message(Kind.SUCCESS, request.method, request.transaction, members), key=key)]


class AllocationTests(SynchronousTestCase):
    """What servers may do, right or wrong."""

    def test_release(self) -> None:
        """What is allocated is given back at once: users have quotas."""
        server = OddServer(error(401, *CHALLENGE), granted, granted)
        uri = parse_uri(f"turn:127.0.0.1:{server.port}", "turn")
        proof = prove(uri, "user", "password", 30.0, tls_context(verify=True))
        server.wait()
        self.assertEqual(("192.0.2.1", 4000), proof.relayed)
        self.assertEqual(
            [Method.ALLOCATE, Method.ALLOCATE, Method.REFRESH], [one.method for one in server.heard]
        )
        self.assertEqual(bytes(4), server.heard[-1].get(Attribute.LIFETIME))

    def failure(self, *answers: Any, timeout: float = 30.0) -> TurnFailed:
        server = OddServer(*answers)
        uri = parse_uri(f"turn:127.0.0.1:{server.port}", "turn")
        with self.assertRaises(TurnFailed) as caught:
            prove(uri, "user", "password", timeout, tls_context(verify=True))
        server.wait()
        self.heard = server.heard
        failure: TurnFailed = caught.exception
        return failure

    def test_lost_and_alien_datagrams(self) -> None:
        """What is lost is sent again; what is no answer to the question is passed over."""

        def noise(request: Message) -> list[bytes]:
            other = Message(Kind.SUCCESS, request.method, bytes(12))
            return [b"", b"\x80noise", encode(other)]

        failure = self.failure(lambda _: [], noise, error(437))
        self.assertEqual(437, failure.code)
        self.assertEqual(1, len({one.transaction for one in self.heard}))

    def test_refused(self) -> None:
        """Not 401: there is nothing to try with credentials."""
        self.assertEqual(
            (403, "error 403 no"), ((failure := self.failure(error(403))).code, str(failure))
        )

    def test_sent_on_without_saying_where(self) -> None:
        """What is printed of a reason has no padding."""

        def padded(request: Message) -> list[bytes]:
            members = ((Attribute.ERROR_CODE, b"\0\0\3\0Try Alternate\0\0\0"),)
            return [encode(Message(Kind.ERROR, request.method, request.transaction, members))]

        self.assertEqual("error 300 Try Alternate", str(self.failure(padded)))

    def test_sent_on_to_nonsense(self) -> None:
        to = ((Attribute.ALTERNATE_SERVER, b"\0\3\0\0"),)
        self.assertIn("malformed answer", str(self.failure(error(300, *to))))

    def test_sent_on_once_the_credentials_are_known(self) -> None:
        """Also a STUN server may send on, and a server that has asked for credentials."""
        for scheme, before, after in (
            ("turn", [error(401, *CHALLENGE)], [error(401, *CHALLENGE), granted, granted]),
            ("stun", [], [granted]),
        ):
            there = OddServer(*after)
            value = b"\0\1" + there.port.to_bytes(2) + bytes([127, 0, 0, 1])
            here = OddServer(*before, error(300, (Attribute.ALTERNATE_SERVER, value)))
            uri = parse_uri(f"{scheme}:127.0.0.1:{here.port}", "turn")
            proof = prove(uri, "user", "password", 30.0, tls_context(verify=True))
            here.wait()
            there.wait()
            self.assertEqual(("127.0.0.1", there.port), proof.alternate)

    def test_stale_nonce(self) -> None:
        new = (CHALLENGE[0], (Attribute.NONCE, b"new"))
        failure = self.failure(error(401, *CHALLENGE), error(438, *new), error(486))
        self.assertEqual(486, failure.code)
        self.assertEqual([None, b"nonce", b"new"], [one.get(Attribute.NONCE) for one in self.heard])

    def test_a_success_that_nobody_signed(self) -> None:
        def success(request: Message) -> list[bytes]:
            return [encode(Message(Kind.SUCCESS, request.method, request.transaction))]

        failure = self.failure(error(401, *CHALLENGE), success)
        self.assertIn("not signed", str(failure))

    def test_malformed(self) -> None:
        for answer in (error(401), error(401, CHALLENGE[0])):
            self.assertIn("malformed", str(self.failure(answer)))

    def test_silence(self) -> None:
        began = time.monotonic()
        self.assertIn("no answer in time", str(self.failure(lambda _: [], timeout=0.2)))
        self.assertGreaterEqual(time.monotonic() - began, 0.2)

    def test_a_name_that_does_not_exist(self) -> None:
        uri = parse_uri("turn:nowhere.invalid", "turn")
        with self.assertRaises(TurnFailed) as caught:
            prove(uri, "user", "password", 30.0, tls_context(verify=True))
        self.assertIn("name lookup", str(caught.exception))
