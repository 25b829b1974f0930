"""``odingw run``."""

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from odingw import __version__
from tests.process import free_port
from tests.sim_stub import temporary_folder
from tests.terminal import PATIENCE, command, environment


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        root = str(Path(__file__).parent.parent)
        process = subprocess.Popen(
            command("run", *arguments),
            cwd=self.folder,
            env=environment(PYTHONPATH=root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        return process

    def test_gateway(self) -> None:
        """It is this very process, and leaves no file for its id."""
        config = self.folder / "odingw.toml"
        config.write_text(
            f'[listen]\npublic = ["tcp:{free_port()}:interface=127.0.0.1"]\nadmin = []\n'
            f'internal = ["tcp:{free_port()}:interface=127.0.0.1"]\n'
            '[state]\nurl = "memory:"\n'
        )
        process = self.start("--config", str(config))
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "has started" in line:
                break
        self.assertTrue(lines, "it says nothing")
        self.assertIn("has started", lines[-1], "".join(lines))
        process.terminate()
        process.stdout.read()
        self.assertNotEqual(1, process.wait(PATIENCE))
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_options(self) -> None:
        """Those of the gateway, before and after ``--config``."""
        for arguments in (["--version"], ["--port", "x", "--config", "y", "--version"]):
            process = self.start(*arguments)
            out, _ = process.communicate(timeout=PATIENCE)
            self.assertEqual((0, f"odingw {__version__}\n"), (process.returncode, out))

    def test_no_configuration(self) -> None:
        out, _ = (process := self.start("--config", "nosuch.toml")).communicate(timeout=PATIENCE)
        self.assertEqual(1, process.returncode)
        self.assertIn("nosuch.toml", out)
        self.assertNotIn("Traceback", out)
