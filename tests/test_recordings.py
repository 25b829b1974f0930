"""The recorded exchanges, against a real process."""

from twisted.trial.unittest import SynchronousTestCase

from tests.process import DATA, GatewayProcess
from tests.recordings import differences

CUSTOMERS = (DATA / "recorded_customers.toml").read_text()
COMMON = 'compatibility = "0.18"\ndisable_timeout = 3600\nremove_timeout = 7200\n'
USERS = '[gateway.internal]\nusers = { username = "password", colon = "a:b" }\n'


class RecordedTests(SynchronousTestCase):
    def replay(self, name: str, gateway: str, steps: int) -> None:
        process = GatewayProcess(gateway).start()
        self.addCleanup(process.stop)
        self.assertEqual((steps, []), differences(process.port, DATA / name))

    def test_client_api(self) -> None:
        self.replay("client_api.jsonl", COMMON + CUSTOMERS, 253)

    def test_grid_config(self) -> None:
        self.replay("grid_config.jsonl", COMMON + CUSTOMERS, 42)

    def test_basic_auth(self) -> None:
        self.replay("basic_auth.jsonl", COMMON + "report_interval = 1\n" + USERS + CUSTOMERS, 31)
