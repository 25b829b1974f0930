"""Metrics: what is counted, and what Prometheus itself thinks of the page."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.process import GatewayProcess, customer, free_port
from tests.test_gateway import metric

SERVER = "sfu.test:4433"


def tool(name: str, package: str) -> str:
    """Return the path of a real program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        raise SkipTest(f"{name} is not installed (package {package})")
    return found


class MetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gateway = GatewayProcess(customer(max_peers=2)).start()
        self.addCleanup(self.gateway.stop)
        self.gateway.report(SERVER, ("room", 1))
        self.gateway.connect("room", "a")
        self.gateway.connect("room", "b")
        self.gateway.call("Connect", token="no token")
        self.gateway.manage("RoomUpdate", room_id="room", user_data=[1])
        self.gateway.manage("RoomUpdate", room_id="nowhere", user_data=[1])
        self.gateway.report(SERVER, ("room", 1))

    def test_what_happened_is_counted(self) -> None:
        server = f'pool="",server="{SERVER}"'
        for name, value in (
            ('odingw_requests_total{api="client",method="Connect",outcome="success"}', 1),
            ('odingw_requests_total{api="client",method="Connect",outcome="rejected"}', 1),
            ('odingw_requests_total{api="server",method="sfu.Report",outcome="success"}', 2),
            ('odingw_refusals_total{reason="peer_limit_exceeded"}', 1),
            ('odingw_refusals_total{reason="room_not_found"}', 1),
            ('odingw_jwt_verifications_total{outcome="ok"}', 4),
            ('odingw_jwt_verifications_total{outcome="malformed"}', 1),
            ('odingw_placements_total{kind="existing"}', 1),
            ('odingw_tasks_total{fate="queued"}', 1),
            ('odingw_tasks_total{fate="sent"}', 1),
            (f"odingw_server_rooms{{{server}}}", 1),
            (f"odingw_server_peers{{{server}}}", 1),
            (f"odingw_server_reservations{{{server}}}", 1),
            ('odingw_customer_peers{customer="acme"}', 1),
            ('odingw_customer_peers_limit{customer="acme"}', 2),
            ("odingw_customer_keys", 1),
        ):
            self.assertEqual(value, metric(self.gateway, name), name)

    def test_promtool_finds_nothing_to_blame(self) -> None:
        promtool = tool("promtool", "prometheus")
        _, _, page = self.gateway.request("GET", "/metrics", port=self.gateway.admin)
        done = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, check=False
        )
        self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))

    def test_a_real_prometheus_scrapes_it(self) -> None:
        prometheus = tool("prometheus", "prometheus")
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 200ms }\nscrape_configs:\n  - job_name: odingw\n"
            f"    static_configs: [{{ targets: ['127.0.0.1:{self.gateway.admin}'] }}]\n"
        )
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        end, value = time.monotonic() + 60, None
        while value != "1":
            self.assertLess(time.monotonic(), end, (folder / "log").read_text())
            value = self.ask(port, 'up{job="odingw"}')
        self.assertEqual("1", self.ask(port, f'odingw_server_rooms{{server="{SERVER}"}}'))

    def ask(self, port: int, query: str) -> str | None:
        """Return the value of a query, or None where there is none yet."""
        url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                result = json.load(reply)["data"]["result"]
        except OSError:
            return None
        return result[0]["value"][1] if result else None
