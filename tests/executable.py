"""The self-contained executable for tests: built once, and run where nothing else is."""

import fcntl
import functools
import importlib.util
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Final, Self

from tests.process import GatewayProcess

ROOT: Final = Path(__file__).parent.parent


@functools.cache
def executable() -> Path:
    """Build the executable if what it is made of has changed.

    Raises:
        unittest.SkipTest: PyInstaller is not installed.
    """
    if importlib.util.find_spec("PyInstaller") is None:
        raise unittest.SkipTest("PyInstaller is not installed (extra odingw[test])")
    with (ROOT / "setup.cfg").open() as lock:
        # Another process may be at it, for tests of its own.
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "make-executable"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return ROOT / "dist" / "odingw"


def setting(program: Path, name: str) -> str:
    """Return what the head of the executable sets a variable to."""
    with program.open("rb") as file:
        for line in file:
            found, _, value = line.decode().rstrip().partition("=")
            if found == name:
                return value
    raise AssertionError(f"{name} is not set")


class ExecutableGateway(GatewayProcess):
    """A gateway that is the executable, alone in a folder.

    Args:
        gateway: as for ``GatewayProcess``.
        before: likewise.
        environment: all of its environment.
    """

    def __init__(self, gateway: str, before: str, environment: dict[str, str]) -> None:
        super().__init__(gateway, before)
        self._environment = environment
        self.home = self.folder / "alone"
        self.home.mkdir()
        self.program = Path(shutil.copy(executable(), self.home))

    def start(self, *front: str, wait: bool = True) -> Self:
        """Start, and wait until it listens.

        Args:
            front: a program that runs the executable, and its arguments.
            wait: until it has started.
        """
        self.process = subprocess.Popen(
            [*front, self.program, "run", "--config", self.config, *self.options],
            cwd=self.home,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._hear(self.process)
        if wait:
            self.wait_for("has started")
        return self
