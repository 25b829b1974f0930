"""The systemd units, with systemd's own tools, and what the gateway tells systemd."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from odingw.ops.systemd import Notifier
from tests.process import BIN, GatewayProcess

ROOT = Path(__file__).parent.parent
SERVICES = ("odingw.service", "odingw@.service")
UNITS = (*SERVICES, "odingw.socket")
EXPOSURE = 20
"""The highest exposure that is accepted, in tenths."""

TOOL = shutil.which("systemd-analyze")


def settings(unit: str) -> list[tuple[str, str]]:
    """Return the settings of a unit as it stands in ``etc``, in their order."""
    lines = (ROOT / "etc" / unit).read_text("utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if re.match(r"[A-Za-z]", line))
    return [(name, value) for name, _, value in pairs]


def setting(unit: str, name: str) -> str:
    """Return the value of a setting that stands there once."""
    (value,) = (value for known, value in settings(unit) if known == name)
    return value


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def render(self) -> list[Path]:
        """Write the units as they are installed, for the ``twistd`` of the tests."""
        for unit in UNITS:
            text = (ROOT / "etc" / unit).read_text("utf-8")
            (self.folder / unit).write_text(text.replace("@BINDIR@", str(BIN)))
        return [self.folder / unit for unit in UNITS]

    def analyze(self, *arguments: str | Path) -> tuple[int, str]:
        """Run ``systemd-analyze`` and return its status and all it wrote."""
        if TOOL is None:
            raise SkipTest("systemd-analyze is not installed (package systemd)")
        done = subprocess.run(
            [TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout

    def run_twistd(self, *arguments: str) -> str:
        """Run ``twistd`` in an empty folder and return what it wrote."""
        return subprocess.run(
            [BIN / "twistd", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout

    def test_systemd_finds_nothing_to_complain_of(self) -> None:
        self.assertEqual(self.analyze("verify", "--man=no", *self.render()), (0, ""))

    def test_services_are_hardly_exposed(self) -> None:
        self.render()
        for unit in SERVICES:
            status, report = self.analyze(
                "security", "--offline=true", f"--threshold={EXPOSURE}", self.folder / unit
            )
            self.assertEqual(status, 0, report)
            self.assertIn("Overall exposure level", report)

    def test_services_name_only_options_that_there_are(self) -> None:
        known = [
            set(re.findall(r"--[a-z][a-z_-]*", self.run_twistd(*arguments)))
            for arguments in (["--help"], ["odingw", "--help"])
        ]
        for unit in SERVICES:
            for part, words in zip(known, self.command(unit), strict=True):
                named = {word.partition("=")[0] for word in words if word.startswith("-")}
                self.assertTrue(named)
                self.assertLessEqual(named, part, unit)

    def test_the_commands_of_services_start_with_the_sample_configuration(self) -> None:
        for unit in SERVICES:
            general, own = self.command(unit)
            own = [word.replace("%i", "1") for word in own]
            own[own.index("--config") + 1] = str(ROOT / "etc" / "odingw.toml")
            written = self.run_twistd(*general, "odingw", *own, "--check")
            *warnings, last = written.splitlines()
            self.assertEqual(last, "the configuration is good")
            for line in warnings:
                self.assertIn("warning: no customer is configured", line)

    def command(self, unit: str) -> tuple[list[str], list[str]]:
        """Return the arguments of ``twistd`` and those of ``odingw``."""
        program, *arguments = shlex.split(setting(unit, "ExecStart"))
        self.assertEqual(program, "@BINDIR@/twistd")
        split = arguments.index("odingw")
        return arguments[:split], arguments[split + 1 :]

    def test_both_services_are_hardened_alike(self) -> None:
        own = {
            "After",
            "BindReadOnlyPaths",
            "Description",
            "ExecStart",
            "RuntimeDirectory",
            "StateDirectory",
        }
        one, each = ([pair for pair in settings(unit) if pair[0] not in own] for unit in SERVICES)
        self.assertEqual(one, each)

    def test_the_socket_is_the_one_that_its_comment_tells_to_configure(self) -> None:
        text = (ROOT / "etc" / "odingw.socket").read_text("utf-8")
        name = setting("odingw.socket", "FileDescriptorName")
        self.assertIn(f'listen.public = ["systemd:domain=INET:name={name}"]', text)
        self.assertRegex(setting("odingw.socket", "ListenStream"), r"^0\.0\.0\.0:\d+$")

    def install(self) -> None:
        tool = ROOT / "tools" / "install-units"
        subprocess.run([tool, "/opt/odingw", self.folder], check=True, stderr=subprocess.PIPE)

    def test_units_are_installed_for_a_prefix(self) -> None:
        self.install()
        for unit in UNITS:
            installed = self.folder / "usr/local/lib/systemd/system" / unit
            source = (ROOT / "etc" / unit).read_text("utf-8")
            self.assertEqual(
                installed.read_text("utf-8"), source.replace("@BINDIR@", "/opt/odingw/bin")
            )

    def test_installing_again_keeps_the_configuration(self) -> None:
        self.install()
        config = self.folder / "etc/odingw/odingw.toml"
        self.assertEqual(config.read_bytes(), (ROOT / "etc" / "odingw.toml").read_bytes())
        config.write_text("# mine\n")
        self.install()
        self.assertEqual(config.read_text(), "# mine\n")


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder)
        self.path = folder / "notify"

    def listen(self, address: str) -> Callable[[], str]:
        """Listen as systemd does, and return what receives a message."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.settimeout(30)
        listener.bind(address.replace("@", "\0"))
        return lambda: listener.recv(4096).decode()

    def addresses(self) -> Iterator[str]:
        """Yield an address of each kind."""
        yield str(self.path)
        yield f"@odingw-test/{self.path.parent.name}"

    def test_messages_arrive_at_sockets_of_both_kinds(self) -> None:
        for address in self.addresses():
            received = self.listen(address)
            notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
            notifier.ready()
            self.assertEqual(received(), "READY=1")
            notifier.status("3 servers")
            self.assertEqual(received(), "STATUS=3 servers")
            notifier.watchdog()
            self.assertEqual(received(), "WATCHDOG=1")
            notifier.stopping()
            self.assertEqual(received(), "STOPPING=1")

    def test_a_stop_may_ask_for_time(self) -> None:
        received = self.listen(str(self.path))
        Notifier(str(self.path)).stopping(2.5)
        self.assertEqual(received(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000")

    def test_a_reload_tells_its_moment_by_the_monotonic_clock(self) -> None:
        received = self.listen(str(self.path))
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        Notifier(str(self.path)).reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        first, second = received().split("\n")
        name, _, moment = second.partition("=")
        self.assertEqual((first, name), ("RELOADING=1", "MONOTONIC_USEC"))
        self.assertIn(int(moment), range(before, after + 1))

    def test_a_status_cannot_smuggle_in_another_message(self) -> None:
        received = self.listen(str(self.path))
        Notifier(str(self.path)).status("fine\nWATCHDOG=trigger\r\n")
        self.assertEqual(received(), "STATUS=fine WATCHDOG=trigger")

    def test_without_systemd_nothing_is_sent_nor_logged(self) -> None:
        with capturedLogs() as logged:
            notifier = Notifier.from_environment({})
            notifier.ready()
            notifier.watchdog()
        self.assertEqual(logged, [])
        self.assertIsNone(notifier.watchdog_interval)

    def test_a_socket_that_fails_is_logged_once_until_it_works_again(self) -> None:
        notifier = Notifier(str(self.path))
        with capturedLogs() as logged:
            notifier.ready()
            notifier.watchdog()
            self.assertEqual(len(logged), 1)
            received = self.listen(str(self.path))
            notifier.watchdog()
            self.assertEqual(received(), "WATCHDOG=1")
            self.path.unlink()
            notifier.watchdog()
        self.assertEqual(len(logged), 2)

    def test_nobody_waits_for_a_systemd_that_does_not_read(self) -> None:
        self.listen(str(self.path))
        notifier = Notifier(str(self.path))
        queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        with capturedLogs() as logged:
            for _ in range(queue + 2):
                notifier.watchdog()
        self.assertEqual(len(logged), 1)

    def test_an_address_of_another_kind_is_logged_and_left_alone(self) -> None:
        with capturedLogs() as logged:
            Notifier("vsock:2:1234").ready()
        (event,) = logged
        self.assertEqual(event["address"], "vsock:2:1234")


class WatchdogIntervalTests(SynchronousTestCase):
    def interval(self, **variables: str) -> float | None:
        # Read-only, so that taking a variable out would be an error.
        return Notifier.from_environment(MappingProxyType(variables)).watchdog_interval

    def test_it_is_half_of_what_systemd_waits(self) -> None:
        pid = str(os.getpid())
        self.assertEqual(self.interval(WATCHDOG_USEC="30000000", WATCHDOG_PID=pid), 15.0)
        self.assertEqual(self.interval(WATCHDOG_USEC="1500000"), 0.75)

    def test_a_watchdog_for_another_process_is_not_fed(self) -> None:
        parent = str(os.getppid())
        self.assertIsNone(self.interval(WATCHDOG_USEC="30000000", WATCHDOG_PID=parent))

    def test_without_a_period_there_is_none(self) -> None:
        self.assertIsNone(self.interval(WATCHDOG_PID=str(os.getpid())))

    def test_a_period_that_is_no_number_is_logged_and_ignored(self) -> None:
        for text in ("", "0", "-5", "1e6", "soon", "٣"):
            with capturedLogs() as logged:
                self.assertIsNone(self.interval(WATCHDOG_USEC=text))
            self.assertEqual(len(logged), 1, text)


class ServiceNotificationTests(SynchronousTestCase):
    def test_systemd_hears_of_the_start_life_reload_and_end(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.settimeout(30)
        listener.bind(str(folder / "notify"))
        variables = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "2000000"}
        self.patch(os, "environ", {**os.environ, **variables})
        gateway = GatewayProcess()
        self.addCleanup(gateway.stop)
        process = gateway.start().process
        assert process is not None

        beats = 0

        def heard(message: str) -> None:
            """Receive the next message that is not a sign of life."""
            nonlocal beats
            while (received := listener.recv(4096).decode()) == "WATCHDOG=1":
                beats += 1
            self.assertEqual(received.partition("\n")[0], message)

        heard("READY=1")
        self.assertEqual(gateway.request("GET", "/ping")[0], 200)
        known = beats
        while beats == known:
            self.assertEqual(listener.recv(4096), b"WATCHDOG=1")
            beats += 1
        process.send_signal(signal.SIGHUP)
        heard("RELOADING=1")
        heard("READY=1")
        process.send_signal(signal.SIGTERM)
        heard("STOPPING=1")
        self.assertEqual(process.wait(30), 0)
