"""Files that are read, whatever stands at their path."""

import os
import signal
import stat
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from odingw import files
from odingw.config.load import load
from odingw.errors import ConfigError
from odingw.files import read_file
from odingw.turn.turnrest_file import TurnFile
from odingw.web.tls import CertificateFiles, ReloadingContextFactory
from tests.process import GatewayProcess
from tests.sim_stub import temporary_folder
from tests.terminal import odingw

PIPE = "it is a pipe, which can be read only once, at the start"


class PipeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self).resolve()
        self.pipe = self.folder / "pipe"
        os.mkfifo(self.pipe, 0o600)
        self.patch(files, "LONGEST_WAIT", 0.05)

    def write(self, data: bytes) -> None:
        """Write into the pipe once there is a reader."""
        self.patch(files, "LONGEST_WAIT", 30)
        writer = threading.Thread(target=self.pipe.write_bytes, args=(data,), daemon=True)
        writer.start()
        self.addCleanup(writer.join, 30)

    def run_reactor(self) -> None:
        """Make it look as if the reactor ran."""
        self.patch(reactor, "running", True)

    def cause(self, path: Path, **limits: Any) -> str | None:
        error: OSError = self.assertRaises(OSError, read_file, path, **limits)
        return error.strerror


class ReadTests(PipeCase):
    def test_a_regular_file(self) -> None:
        path = self.folder / "file"
        for data in (b"", b"x" * 100_000):
            path.write_bytes(data)
            self.assertEqual(data, read_file(path, max_bytes=100_000))

    def test_how_large_it_may_be(self) -> None:
        path = self.folder / "file"
        path.write_bytes(b"x" * 1001)
        for large in (path, Path("/dev/zero")):
            self.assertEqual("it is larger than 1000 bytes", self.cause(large, max_bytes=1000))
        self.assertEqual("it is larger than 16777216 bytes", self.cause(Path("/dev/zero")))

    def test_a_pipe_is_waited_for(self) -> None:
        data = b"x" * 1_000_000
        self.write(data)
        self.assertEqual(data, read_file(self.pipe))

    def test_a_pipe_that_nobody_writes_to(self) -> None:
        self.assertEqual("nobody writes to it", self.cause(self.pipe))
        descriptor = os.open(self.pipe, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        self.assertEqual("nobody writes to it", self.cause(self.pipe))

    def test_a_pipe_while_the_reactor_runs(self) -> None:
        self.run_reactor()
        self.assertEqual(PIPE, self.cause(self.pipe))
        self.assertEqual(b"", read_file(Path("/dev/null")))

    def test_a_pipe_where_none_can_be(self) -> None:
        self.assertEqual(PIPE, self.cause(self.pipe, pipes=False))

    def test_nothing_there(self) -> None:
        self.assertEqual("No such file or directory", self.cause(self.folder / "none"))
        self.assertEqual("Is a directory", self.cause(self.folder))

    def test_its_status_is_checked_first(self) -> None:
        def check(status: os.stat_result) -> None:
            self.assertTrue(stat.S_ISFIFO(status.st_mode))
            raise ValueError("no")

        self.assertRaises(ValueError, read_file, self.pipe, check=check)


class EveryFileTests(PipeCase):
    """Whatever reads files at a reload does not wait."""

    def test_the_configuration_and_what_it_names(self) -> None:
        config = self.folder / "odingw.toml"
        config.write_text('gateway.master_key_file = "pipe"\n')
        key = b64encode(os.urandom(32))
        self.write(key)
        self.assertEqual((key.decode(),), load(config).gateway.master_keys)
        self.run_reactor()
        for path in (config, self.pipe):
            self.assertIn(PIPE, str(self.assertRaises(ConfigError, load, path)))

    def test_a_turnrest_file(self) -> None:
        self.run_reactor()
        self.assertIn(PIPE, str(self.assertRaises(ConfigError, TurnFile(self.pipe).load)))

    def test_certificates(self) -> None:
        self.run_reactor()
        pair = CertificateFiles(self.pipe, self.pipe)
        error = self.assertRaises(ConfigError, ReloadingContextFactory, pair)
        self.assertIn(PIPE, str(error))

    def test_the_command_does_not_hang(self) -> None:
        for command in ("check", "customers"):
            result = odingw(command, str(self.pipe))
            self.assertNotEqual(0, result.status, command)
            self.assertIn("nobody writes to it", result.err, command)


class ProcessTests(SynchronousTestCase):
    def test_files_that_become_pipes_stop_nothing(self) -> None:
        gateway = GatewayProcess('[gateway.customer_source]\nfile = "customers.json"\n')
        self.addCleanup(gateway.stop)
        customers = gateway.folder / "customers.json"
        customers.write_text("[]")
        gateway.start()
        assert gateway.process is not None
        for path in (customers, gateway.config):
            path.unlink()
            os.mkfifo(path, 0o600)
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_for(
                f"customers.json, the last good list stays: {PIPE}"
                if path == customers
                else f"the configuration stays as it was: {path}: cannot read it: {PIPE}"
            )
            self.assertEqual(200, gateway.request("GET", "/ping")[0])
        self.assertEqual(0, gateway.stop())
