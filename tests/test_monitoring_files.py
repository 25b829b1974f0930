"""The Prometheus rules and the Grafana dashboard in ``etc``, against a real gateway."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.process import GatewayProcess, customer, free_port, token

ROOT = Path(__file__).parent.parent
RULES = ROOT / "etc" / "prometheus-rules.yml"
RULE_TESTS = ROOT / "tests" / "data" / "prometheus-rules.test.yml"
DASHBOARD = ROOT / "etc" / "grafana-dashboard.json"

OF_PROMETHEUS = {"up", "ALERTS"}
"""What Prometheus itself adds."""

CONFIG = """\
[listen]
public = ["tcp:{port}:interface=127.0.0.1", "ssl:0:interface=127.0.0.1"]
admin = ["tcp:{admin}:interface=127.0.0.1"]
[state]
url = "sqlite:{folder}/state.sqlite"
[turn]
secret_keys = ["between us"]
turn_uris = ["turn:127.0.0.1:9"]
access_keys = true
"""


def tool(name: str) -> str:
    """Return the path of one of Prometheus's programs.

    Raises:
        SkipTest: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise SkipTest(f"{name} is not installed (package prometheus)")
    return found


@cache
def groups() -> list[dict[str, Any]]:
    """Return the groups of rules."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return found


def rules(kind: str) -> list[dict[str, Any]]:
    """Return all rules of a kind: ``alert`` or ``record``."""
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


@cache
def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels that are not headings of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title and a query of each panel, with Grafana's variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in (("__rate_interval", "5m"), ("job", "odingw"), ("instance", ".*")):
                text = re.sub(rf"\${name}\b", value, text)
            yield panel["title"], text


def names_in(query: str) -> set[str]:
    """Return the names of all metrics that a query asks for."""
    found = set()

    def visit(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found.add(part.name or "")

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def names_on(page: str) -> set[str]:
    """Return the names of all series that a page of metrics can have."""
    found = set()
    endings = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
        "info": ("_info",),
    }
    for family in text_string_to_metric_families(page):
        found |= {family.name + ending for ending in endings.get(family.type, ("",))}
        found |= {sample.name for sample in family.samples}
    return found


class RuleTests(SynchronousTestCase):
    def run_promtool(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [tool("promtool"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    def test_promtool_finds_nothing_to_blame(self) -> None:
        said = self.run_promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
        self.assertIn(f"SUCCESS: {len(rules('alert')) + len(rules('record'))} rules found", said)

    def test_alerts_fire_when_they_should_and_only_then(self) -> None:
        self.assertIn("SUCCESS", self.run_promtool("test", "rules", RULE_TESTS))

    def test_each_alert_has_a_test_and_says_what_it_means(self) -> None:
        tested = set(re.findall(r"\bOdingw[A-Z]\w+", RULE_TESTS.read_text("utf-8")))
        self.assertEqual({rule["alert"] for rule in rules("alert")}, tested)
        for rule in rules("alert"):
            self.assertEqual({"summary", "description"}, set(rule["annotations"]))
            self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})


class DashboardTests(SynchronousTestCase):
    def test_grafana_can_import_it(self) -> None:
        found = dashboard()
        self.assertGreaterEqual(found["schemaVersion"], 39)
        self.assertIsNone(found["id"])
        (source, *others) = found["templating"]["list"]
        self.assertEqual(("datasource", "prometheus"), (source["type"], source["query"]))
        chosen = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
        for part in [*others, *panels(), *(t for panel in panels() for t in panel["targets"])]:
            self.assertEqual(chosen, part["datasource"])
        known = {variable["name"] for variable in found["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text("utf-8")))
        self.assertEqual(known, used - {"__rate_interval", "__all"})
        ids = [panel["id"] for panel in found["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_panels_lie_side_by_side(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard()["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(taken & cells, panel["title"])
            self.assertLessEqual(max(x for x, _ in cells), 23, panel["title"])
            taken |= cells

    def test_each_panel_says_what_it_shows_and_in_which_unit(self) -> None:
        for panel in panels():
            self.assertTrue(panel["description"].endswith("."), panel["title"])
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])


class LiveTests(SynchronousTestCase):
    """What a gateway that has seen this and that shows, and what Prometheus makes of it."""

    def setUp(self) -> None:
        gateway = GatewayProcess(customer(max_peers=2, max_rooms=3), CONFIG)
        self.addCleanup(gateway.stop)
        certificate = trustme.CA().issue_cert("localhost")
        for name, pem in (
            ("fullchain.pem", certificate.cert_chain_pems[0]),
            ("privkey.pem", certificate.private_key_pem),
        ):
            pem.write_to_path(gateway.folder / name)
        gateway.start()
        gateway.connect("lobby", "a")
        gateway.report("sfu-1.example:4433", ("lobby", 1))
        for user in ("a", "b", "c"):
            gateway.connect("lobby", user)
        gateway.call("Connect", token="no token")
        gateway.manage("RoomUpdate", room_id="lobby", user_data=[1])
        gateway.report("sfu-1.example:4433", ("lobby", 1))
        bearer = {"Authorization": f"Bearer {token('lobby', 'a', subject='turn')}"}
        self.assertEqual(200, gateway.request("GET", "/turn", headers=bearer)[0])
        gateway.request("GET", "/clients/turnRestClient-2.1.0.js")
        self.gateway = gateway

    def test_all_queries_name_metrics_that_there_are(self) -> None:
        page = self.gateway.request("GET", "/metrics", port=self.gateway.admin)[2].decode()
        known = names_on(page) | OF_PROMETHEUS | {rule["record"] for rule in rules("record")}
        asked = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in all_rules()]
        asked += queries()
        asked += [
            (found["name"], found["expr"])
            for found in dashboard()["annotations"]["list"]
            if "expr" in found
        ]
        used = set()
        for name, query in asked:
            self.assertEqual(set(), names_in(query) - known, name)
            used |= names_in(query)
        own = {name for name in names_on(page) if name.startswith("odingw_")}
        self.assertEqual(set(), own - used, "metrics that are neither in a rule nor in a panel")

    def test_prometheus_has_an_answer_to_every_panel(self) -> None:
        """So the labels, and their values, are those that there are."""
        port = self.start_prometheus()
        left = dict.fromkeys(queries())
        end = time.monotonic() + 60
        while True:
            for title, query in list(left):
                if self.ask(port, query):
                    del left[title, query]
            if not left:
                break
            self.assertLess(time.monotonic(), end, list(left))
            time.sleep(0.2)
        loaded = self.get(port, "rules", {})["data"]["groups"]
        health = {rule["health"] for group in loaded for rule in group["rules"]}
        self.assertLessEqual(health, {"ok", "unknown"}, loaded)

    def start_prometheus(self) -> int:
        """Let a Prometheus scrape the gateway, and return its port."""
        program = tool("prometheus")
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 250ms, evaluation_interval: 250ms }\n"
            f"rule_files: ['{RULES}']\n"
            "scrape_configs:\n  - job_name: odingw\n"
            f"    static_configs: [{{ targets: ['127.0.0.1:{self.gateway.admin}'] }}]\n"
        )
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        return port

    def ask(self, port: int, query: str) -> list[Any]:
        """Return what a query finds; nothing as long as nobody listens."""
        try:
            found: list[Any] = self.get(port, "query", {"query": query})["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise AssertionError(f"{query}: {error.read().decode()}") from None
            return []
        except OSError:
            return []
        return found

    def get(self, port: int, path: str, arguments: dict[str, str]) -> Any:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)


def all_rules() -> list[dict[str, Any]]:
    """Return alerts and recordings."""
    return rules("alert") + rules("record")
