"""Starting, changing and ending the real process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from odingw.tokens import AccessKey
from tests import forks
from tests.process import BIN, GatewayProcess, customer, free_port, report_params, token

SERVER = "sfu.test:4433"
OTHER_KEY = AccessKey.generate(lambda count: b"o" * count)


def twistd(*options: str | Path, cwd: Path) -> forks.Done:
    """Run ``twistd -n odingw`` to its end."""
    env = {name: value for name, value in os.environ.items() if name != "STATE_DIRECTORY"}
    return forks.run(["-n", "--pidfile=", "odingw", *options], cwd, env)


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, text: str, name: str = "odingw.toml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


class RefusedStartTests(FolderCase):
    def test_one_line_that_names_file_key_and_remedy(self) -> None:
        """What only the process can see; the table of the other kinds is in test_config_wrong."""
        key = self.write("not a key", "key.pem")
        for text, words in (
            ("[gateway\n", ("odingw.toml", "line 1")),
            ("[gatewai]\n", ("odingw.toml", "gatewai", "gateway")),
            ("[gateway]\nleeway = true\n", ("gateway.leeway", "number")),
            ('[listen]\npublic = ["tpc:1"]\n', ("listen.public[0]", "tcp")),
            ('[listen]\npublic = ["tcp:70000"]\n', ("listen.public[0]", "70000")),
            ('[listen]\nadmin = ["ssl:1"]\n', ("listen.admin[0]", "privkey.pem")),
            (
                f'[listen]\ninternal = ["ssl:1:privateKey={key}"]\n',
                ("listen.internal[0]", "key.pem"),
            ),
            ('[gateway]\nmaster_key_file = "none"\n', ("master_key_file", "none")),
            ('[state]\nurl = "redis://h"\n', ("gateway.master_key", "state")),
        ):
            done = twistd("--config", self.write(text), cwd=self.folder)
            self.assertEqual(1, done.returncode, text)
            lines = done.stderr.strip().splitlines()
            self.assertEqual(1, len(lines), done.stderr)
            for word in words:
                self.assertIn(word, lines[0])
            self.assertEqual("", done.stdout)

    def test_a_port_in_use(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = twistd("--host", "127.0.0.1", "--port", str(port), cwd=self.folder)
        self.assertEqual(1, done.returncode)
        self.assertIn(f"cannot listen on tcp:{port}:interface=127.0.0.1", done.stdout)

    def test_wrong_options(self) -> None:
        done = twistd("--port", "many", cwd=self.folder)
        self.assertEqual((1, 1), (done.returncode, len(done.stderr.strip().splitlines())))
        self.assertIn("--port", done.stderr)


class CheckTests(FolderCase):
    def test_check_says_that_all_is_well_and_makes_nothing(self) -> None:
        done = twistd("--config", self.write(customer()), "--check", cwd=self.folder)
        self.assertEqual((0, "the configuration is good\n"), (done.returncode, done.stdout))
        self.assertEqual(["odingw.toml"], [path.name for path in self.folder.iterdir()])

    def test_check_says_what_is_wrong(self) -> None:
        done = twistd("--config", self.write("[log]\nlevel = 1\n"), "--check", cwd=self.folder)
        self.assertEqual(1, done.returncode)
        self.assertIn("log.level", done.stderr)

    def test_the_example_is_good(self) -> None:
        example = Path(__file__).parent.parent / "etc" / "odingw.toml"
        done = twistd("--config", example, "--check", cwd=self.folder)
        self.assertEqual(0, done.returncode, done.stderr)


class MasterKeyTests(FolderCase):
    def start(self) -> str:
        """Start without any configuration, and return the text of the key file."""
        process = subprocess.Popen(
            [
                BIN / "twistd",
                "-n",
                "--pidfile=",
                "odingw",
                "--port",
                str(free_port()),
                "--admin",
                f"tcp:{free_port()}:interface=127.0.0.1",
                "--internal",
                f"tcp:{free_port()}:interface=127.0.0.1",
            ],
            cwd=self.folder,
            env={**os.environ, "STATE_DIRECTORY": str(self.folder / "state")},
            stdout=subprocess.PIPE,
            text=True,
        )
        (self.folder / "state").mkdir(exist_ok=True)
        log = ""
        for line in process.stdout or ():
            log += line
            if "has started" in line:
                break
        process.terminate()
        log += process.communicate(timeout=30)[0]
        self.assertEqual(0, process.returncode, log)
        self.log = log
        return (self.folder / "state" / "odingw.masterkey").read_text()

    def test_one_is_made_once_and_kept(self) -> None:
        first = self.start()
        self.assertIn("master key", self.log)
        self.assertIn("nobody is let in", self.log)
        self.assertNotIn(first.strip(), self.log)
        mode = (self.folder / "state" / "odingw.masterkey").stat().st_mode
        self.assertEqual(0o600, mode & 0o777)
        self.assertEqual(first, self.start())

    def test_a_broken_key_file_is_not_replaced(self) -> None:
        (self.folder / "state").mkdir()
        (self.folder / "state" / "odingw.masterkey").write_text("!")
        done = subprocess.run(
            [BIN / "twistd", "-n", "--pidfile=", "odingw"],
            cwd=self.folder,
            env={**os.environ, "STATE_DIRECTORY": str(self.folder / "state")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(1, done.returncode)
        self.assertIn("odingw.masterkey", done.stderr)


class SignalTests(SynchronousTestCase):
    def start(self, gateway: str = "", before: str = "") -> GatewayProcess:
        process = GatewayProcess(gateway or customer(), before).start()
        self.addCleanup(process.stop)
        return process

    def test_hangup_reads_customers_again(self) -> None:
        gateway = self.start()
        gateway.report(SERVER)
        self.assertIn("error", gateway.connect("room", key=OTHER_KEY))
        gateway.configure(customer() + customer("other", OTHER_KEY))
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("2 customers")
        self.assertIn("result", gateway.connect("room", key=OTHER_KEY))
        gateway.config.write_text("[gateway\n")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("the configuration stays as it was")
        self.assertIn("result", gateway.connect("room", key=OTHER_KEY))

    def test_a_customer_that_is_taken_out_is_let_in_no_more(self) -> None:
        gateway = self.start(customer() + customer("other", OTHER_KEY))
        gateway.report(SERVER)
        self.assertIn("result", gateway.connect("room", key=OTHER_KEY))
        gateway.configure(customer())
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for("1 customer")
        self.assertEqual(
            "not authorized", gateway.connect("room", key=OTHER_KEY)["error"]["message"]
        )

    def test_terminate_finishes_the_request_in_flight(self) -> None:
        gateway = self.start()
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "sfu.Report", "params": report_params(SERVER)}
        ).encode()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as busy:
            head = f"POST /internal HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            busy.sendall(head.encode() + b"\r\n" + body[:10])
            gateway.request("GET", "/ping")
            assert gateway.process is not None
            gateway.process.terminate()
            gateway.wait_for("stopping on SIGTERM")
            busy.sendall(body[10:])
            reply = b""
            while chunk := busy.recv(65536):
                reply += chunk
        self.assertIn(b"200 OK", reply)
        self.assertIn(b"Connection: close", reply)
        self.assertEqual(0, gateway.process.wait(30))

    def test_not_ready_before_it_is_deaf(self) -> None:
        gateway = self.start(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\nshutdown_delay = 1\n',
        )
        self.assertEqual(200, gateway.request("GET", "/readyz", port=gateway.admin)[0])
        assert gateway.process is not None
        gateway.process.terminate()
        gateway.wait_for("stopping on SIGTERM")
        status = 200
        while status == 200:
            status, headers, _ = gateway.request("GET", "/readyz", port=gateway.admin)
        self.assertEqual((503, "close"), (status, headers["Connection"]))
        self.assertEqual(200, gateway.request("GET", "/ping")[0])
        self.assertEqual(200, gateway.request("GET", "/healthz", port=gateway.admin)[0])
        self.assertEqual(0, gateway.process.wait(30))

    def test_a_gateway_that_stood_still_moves_no_room(self) -> None:
        gateway = self.start("report_interval = 0.5\ndisable_timeout = 1\n" + customer())
        gateway.report(SERVER, ("room", 1))
        gateway.report("idle.test:4433")
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGSTOP)
        self.assertRaises(subprocess.TimeoutExpired, gateway.process.wait, 2.5)
        gateway.process.send_signal(signal.SIGCONT)
        gateway.wait_for("stood still")
        self.assertNotIn("is disabled", gateway.log)
        self.assertEqual(SERVER, gateway.connect("room")["result"]["address"])


class LogTests(SynchronousTestCase):
    def test_json_lines_without_secrets(self) -> None:
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            '[log]\nformat = "json"\nlevel = "debug"\n',
        ).start()
        self.addCleanup(gateway.stop)
        gateway.report(SERVER, ("room", 1))
        secret = token("room", subject="RoomClose")
        gateway.call("RoomClose", {"room_id": "room", "ban_time": 5}, token=secret)
        gateway.wait_for("RoomClose")
        lines = [json.loads(line) for line in gateway.log.splitlines()]
        audit = next(line for line in lines if line["logger"] == "odingw.audit")
        self.assertEqual(
            ("RoomClose", "room", "acme", "accepted"),
            (audit["method"], audit["room"], audit["customer"], audit["outcome"]),
        )
        for text in (secret, secret.rpartition(".")[2], "VGhpcyBpcyBhIHN1cGVy"):
            self.assertNotIn(text, gateway.log)
