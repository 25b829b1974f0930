"""A real process over real TLS, and a client that verifies whom it talks to."""

import http.client
import signal
import ssl
from pathlib import Path
from typing import Any

import treq
import trustme
from twisted.internet import defer, reactor
from twisted.internet import ssl as twisted_ssl
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from tests.process import GatewayProcess, customer, token

ADMIN = '[listen]\nadmin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'


class TlsProcessTests(TestCase):
    """``--ssl`` and ``ssl:`` alike."""

    timeout = 60

    def setUp(self) -> None:
        self.authority = trustme.CA()

    def start(self, before: str, *options: str) -> GatewayProcess:
        gateway = GatewayProcess(customer(), before, *options)
        self.issue(gateway.folder)
        self.addCleanup(gateway.stop)
        return gateway

    def issue(self, folder: Path) -> None:
        """Write a new certificate, as an ACME client would: the chain first, then the key."""
        certificate = self.authority.issue_cert("localhost")
        (folder / "fullchain.pem").write_bytes(
            b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        )
        certificate.private_key_pem.write_to_path(folder / "privkey.pem")

    def keep_alive(self, gateway: GatewayProcess) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        connection = http.client.HTTPSConnection("localhost", gateway.port, context=context)
        self.addCleanup(connection.close)
        return connection

    def ping(self, connection: http.client.HTTPSConnection) -> tuple[bytes, int]:
        """Return the answer, and the serial number of the certificate."""
        connection.request("GET", "/ping")
        body = connection.getresponse().read()
        assert isinstance(connection.sock, ssl.SSLSocket)
        found: Any = connection.sock.getpeercert()
        return body, int(found["serialNumber"], 16)

    def renewed(self, gateway: GatewayProcess, *, by_itself: bool) -> None:
        old = self.keep_alive(gateway)
        pong, serial = self.ping(old)
        self.assertEqual(b"pong", pong)
        self.issue(gateway.folder)
        if not by_itself:
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("get the new certificate")
        self.assertEqual((b"pong", serial), self.ping(old), "an open connection goes on")
        pong, new_serial = self.ping(self.keep_alive(gateway))
        self.assertEqual(b"pong", pong)
        self.assertNotEqual(serial, new_serial)

    def options(self, gateway: GatewayProcess) -> tuple[str, ...]:
        return (
            "--ssl",
            "--host",
            "127.0.0.1",
            "--port",
            str(gateway.port),
            "--certificate",
            str(gateway.folder / "fullchain.pem"),
            "--privatekey",
            str(gateway.folder / "privkey.pem"),
        )

    def start_with_options(self) -> GatewayProcess:
        gateway = self.start(ADMIN)
        gateway.options = self.options(gateway)
        return gateway.start()

    def test_options_and_hangup(self) -> None:
        self.renewed(self.start_with_options(), by_itself=False)

    def test_endpoint_string_by_itself(self) -> None:
        gateway = self.start(
            ADMIN.replace(
                "[listen]\n",
                '[listen]\npublic = ["ssl:{port}:interface=127.0.0.1:'
                'privateKey=privkey.pem:certKey=fullchain.pem"]\n',
            )
        )
        self.renewed(gateway.start(), by_itself=True)

    def test_a_broken_certificate_keeps_the_old_one(self) -> None:
        gateway = self.start_with_options()
        (gateway.folder / "fullchain.pem").write_text("broken")
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("stays as it was")
        self.assertEqual(b"pong", self.ping(self.keep_alive(gateway))[0])

    @defer.inlineCallbacks
    def test_a_twisted_client_that_verifies(self) -> Any:
        gateway = self.start_with_options()
        root = twisted_ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())
        pool = HTTPConnectionPool(reactor, persistent=False)
        for trusted in (True, False):
            roots = twisted_ssl.trustRootFromCertificates([root] if trusted else [])
            agent: Any = Agent(reactor, BrowserLikePolicyForHTTPS(roots), pool=pool)
            client: Any = treq.client.HTTPClient(agent)
            asked = client.post(
                f"https://localhost:{gateway.port}/",
                json={"jsonrpc": "2.0", "id": 1, "method": "Connect"},
                headers={"Authorization": f"Bearer {token('room')}"},
            )
            if trusted:
                answer = yield (yield asked).json()
                self.assertEqual("no_server", answer["error"]["data"]["reason"])
            else:
                yield self.assertFailure(asked, Exception)
        wrong_name = client.get(f"https://127.0.0.1:{gateway.port}/ping")
        yield self.assertFailure(wrong_name, Exception)
