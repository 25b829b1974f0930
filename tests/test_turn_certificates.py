"""TURN servers whose certificates browsers refuse: they are told of, and handed out still."""

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trustme
from cryptography.x509 import load_pem_x509_certificate
from twisted.trial.unittest import SynchronousTestCase

from odingw.turn.certificates import Certificate
from tests.coturn import Coturn
from tests.process import GatewayProcess, customer
from tests.test_gateway import metric

SECRET = "a secret for coturn and the gateway"
PAST, SOON = datetime(2020, 5, 17, 12, tzinfo=UTC), datetime.now(UTC) + timedelta(days=3)
TRUSTED = "odingw_turn_certificate_trusted"
ENDS = "odingw_turn_certificate_expiry_timestamp_seconds"


class CertificateTests(SynchronousTestCase):
    def test_the_last_day(self) -> None:
        self.assertEqual(Certificate(PAST.timestamp()).last_day, "2020-05-17")

    def test_what_browsers_refuse(self) -> None:
        """Several faults of one certificate are all named."""
        known, unknown = trustme.CA(), trustme.CA()
        servers = [
            (issue(known, "localhost", not_after=SOON), ""),
            (issue(known, "*.localhost", "localhost"), ""),
            (issue(known, "127.0.0.1", "localhost", not_after=PAST), "it has expired"),
            (issue(known, "localhost", not_before=SOON), "it is not valid yet"),
            (issue(known, "elsewhere.example"), "it is not for localhost"),
            (issue(known, common_name="localhost"), "it is not for localhost"),
            (issue(unknown, "localhost"), "its issuer is not known"),
            (
                issue(unknown, "elsewhere.example", not_after=PAST),
                "its issuer is not known, it has expired, it is not for localhost",
            ),
            (issue(known.create_child_ca(), "localhost"), ""),
        ]
        coturns = [Coturn(SECRET, tls=certificate) for certificate, _ in servers]
        for coturn in coturns:
            self.addCleanup(coturn.remove)
            coturn.start()
        uris = [f"turns:localhost:{coturn.tls_port}" for coturn in coturns]
        gateway = self.started(known, *uris)

        def value(name: str, uri: str) -> float | None:
            page = gateway.request("GET", "/metrics", port=gateway.admin)[2].decode()
            found = re.search(rf'^{name}{{uri="{re.escape(uri)}"}} (\S+)$', page, re.MULTILINE)
            return float(found[1]) if found else None

        self.wait_until(lambda: None not in [value(ENDS, uri) for uri in uris])
        for uri, (certificate, refusal) in zip(uris, servers, strict=True):
            self.assertEqual(float(not refusal), value(TRUSTED, uri), uri)
            if refusal:
                line = gateway.wait_for(f"{uri}: browsers refuse its certificate")
                self.assertIn(f"which ends on {last_day(certificate)}: {refusal}\n", line)
            self.assertEqual(int(not refusal), gateway.log.count(f"{uri}: browsers") ^ 1)
        self.assertEqual(SOON.replace(microsecond=0).timestamp(), value(ENDS, uris[0]))
        self.assertEqual(PAST.timestamp(), value(ENDS, uris[2]))
        self.assertEqual(uris, json.loads(gateway.request("GET", "/turn")[2])["uris"])
        self.assertEqual(1, metric(gateway, f'odingw_turn_server_up{{uri="{uris[2]}"}}'))

    def started(self, authority: trustme.CA, *uris: str) -> GatewayProcess:
        """Start a gateway on a machine that knows this authority, and no other."""
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[turn]\nsecret_keys = ["{SECRET}"]\nignore_jwt = true\nwatch_interval = 0.3\n'
            f"turn_uris = {json.dumps(uris)}\n",
        )
        authorities = gateway.folder / "authorities.pem"
        authority.cert_pem.write_to_path(str(authorities))
        here = {**os.environ, "SSL_CERT_FILE": str(authorities), "SSL_CERT_DIR": os.devnull}
        self.patch(os, "environ", here)
        self.addCleanup(gateway.stop)
        return gateway.start()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)


def issue(authority: trustme.CA, *names: str, **more: object) -> trustme.LeafCert:
    arguments: dict[str, object] = more
    return authority.issue_cert(*names, **arguments)  # type: ignore[arg-type]  # what trustme takes


def last_day(certificate: trustme.LeafCert) -> str:
    pem = certificate.cert_chain_pems[0].bytes()
    return load_pem_x509_certificate(pem).not_valid_after_utc.date().isoformat()
