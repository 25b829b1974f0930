"""A gateway that is full of secrets tells none of them."""

import json
import re
from base64 import b64encode
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.process import GatewayProcess, customer, free_port, token
from tests.test_security import SERVER, basic


class SecretTests(SynchronousTestCase):
    """A gateway that is full of secrets tells none of them."""

    secrets: Final = {
        "master": b64encode(b"master hunter2 of this gateway").decode(),
        "older": b64encode(b"older hunter2 of this gateway").decode(),
        "user": "user-hunter2",
        "bound": "bound-hunter2",
        "admin": "admin-hunter2",
        "turn": "turn-hunter2-turn-hunter2",
        "old turn": "old-turn-hunter2-turn-hunter2",
    }

    def setUp(self) -> None:
        secrets = self.secrets
        self.gateway = GatewayProcess(
            f"report_interval = 0.2\ndisable_timeout = 5\n{customer()}"
            f'[gateway.internal.users]\nann = "{secrets["user"]}"\n'
            f'bob = {{ password = "{secrets["bound"]}", servers = ["b.test:1"] }}\n'
            f'[admin]\nusers = {{ root = "{secrets["admin"]}" }}\n'
            f'[turn]\nsecret_keys = ["{secrets["turn"]}", "{secrets["old turn"]}"]\n'
            'turn_uris = ["turn:127.0.0.1:1"]\naccess_keys = true\n',
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
            '[log]\nlevel = "debug"\nformat = "json"\n',
        )
        self.addCleanup(self.gateway.stop)
        self.write_keys(secrets["master"], secrets["older"])
        self.gateway.start()
        self.admin = {"Authorization": basic("root", secrets["admin"])}
        self.ann = {"Authorization": basic("ann", secrets["user"])}

    def write_keys(self, *keys: str) -> None:
        """Configure master keys."""
        text = re.sub(
            r"master_keys? = .*",
            f"master_keys = {json.dumps(keys)}",
            self.gateway.config.read_text(),
        )
        self.gateway.config.write_text(text)

    def page(self, path: str, **options: Any) -> str:
        """Return what a page of the admin endpoint says, headers too."""
        status, headers, body = self.gateway.request(
            "GET", path, headers=self.admin, port=self.gateway.admin, **options
        )
        self.assertEqual(200, status, path)
        return f"{headers}{body.decode()}"

    def use_everything(self) -> tuple[list[str], str]:
        """Make calls of every kind, good ones and bad ones; return tokens, and what was said."""
        gateway, said = self.gateway, []
        settings = gateway.call(
            "sfu.GridConfig",
            {"public_endpoint": SERVER, "version": "1", "config": ""},
            path="/internal",
            headers=self.ann,
        )["result"]["config"]
        found = re.search(r'\bd = "([^"]+)"', settings)
        assert found is not None
        gateway.call(
            "sfu.Report",
            {"public_endpoint": SERVER, "version": "1", "load": 0, "clients": 0, "rooms": []},
            path="/internal",
            headers=self.ann,
        )
        good = token("room", "user")
        room_token = gateway.call("Connect", token=good)["result"]["token"]
        turn = token("room", subject="turn")
        status, _, issued = gateway.request(
            "GET", "/turn", headers={"Authorization": f"Bearer {turn}"}
        )
        self.assertEqual(200, status, issued)
        wrong = [good[:-4] + "AAAA", "x" * 9000, good + " trailing"]
        for text in wrong:
            said.append(str(gateway.call("Connect", token=text)))
            _, _, body = gateway.request(
                "GET", "/turn", headers={"Authorization": f"Bearer {text}"}
            )
            said.append(body.decode())
        for user, password in (("ann", "wrong"), ("nobody", self.secrets["user"]), ("bob", "x")):
            headers = {"Authorization": basic(user, password)}
            said.append(str(gateway.call("Info", path="/internal", headers=headers)))
        bob = {"Authorization": basic("bob", self.secrets["bound"])}
        said.append(str(gateway.call("Drain", {"server": SERVER}, path="/internal", headers=bob)))
        said.append(str(gateway.call("Info", path="/internal", headers=self.ann)))
        said.append(
            str(
                gateway.call(
                    "sfu.GridConfig",
                    {"public_endpoint": SERVER, "version": "1", "config": "password = hunter2"},
                    path="/internal",
                    headers=self.ann,
                )
            )
        )
        secret = json.loads(issued)["password"]
        return [found[1], good, room_token, turn, secret, *wrong[:1]], "\n".join(said)

    def test_no_secret_is_told(self) -> None:
        """Not in the log at any level, in no error, on no admin page, and not to ps(1)."""
        gateway = self.gateway
        tokens, said = self.use_everything()
        self.write_keys(self.secrets["older"], self.secrets["master"])
        assert gateway.process is not None
        gateway.process.send_signal(1)
        log = gateway.wait_for("they count from the next start on")
        shown = {"log": log, "replies": said}
        for path in (
            "/monitor",
            "/monitor/state",
            "/monitor/metrics",
            "/monitor/healthcheck",
            "/monitor/threads",
        ):
            shown[path] = self.page(path)
        process = f"/proc/{gateway.process.pid}"
        for name in ("cmdline", "environ", "comm"):
            with open(f"{process}/{name}", "rb") as file:  # noqa: PTH123  -- no file of ours
                shown[name] = file.read().decode("latin-1")
        hidden = [*self.secrets.values(), *tokens]
        # Signatures alone are secret enough.
        hidden += [text.rpartition(".")[2] for text in tokens if text.count(".") == 2]
        for where, text in shown.items():
            for secret in hidden:
                self.assertNotIn(secret, text, where)
        self.assertNotIn("hunter2", shown["log"])

    def test_no_core_is_dumped(self) -> None:
        assert self.gateway.process is not None
        with open(f"/proc/{self.gateway.process.pid}/limits") as file:  # noqa: PTH123  -- likewise
            (line,) = (line for line in file if line.startswith("Max core file size"))
        self.assertEqual("0", line.split()[4])


class RedisPasswordTests(SynchronousTestCase):
    def test_it_is_not_told_when_redis_is_away(self) -> None:
        secret = "redis-hunter2"
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[log]\nlevel = "debug"\n'
            f'[state]\nurl = "redis://odingw:{secret}@127.0.0.1:{free_port()}/0"\n',
        )
        self.addCleanup(gateway.stop)
        shown = [gateway.start().wait_for("Redis is away")]
        for path in ("/readyz", "/monitor/state", "/metrics", "/monitor/threads"):
            _, headers, body = gateway.request("GET", path, port=gateway.admin)
            shown.append(f"{headers}{body.decode()}")
        for text in shown:
            self.assertNotIn(secret, text)
