"""Mounts of one's own for a gateway, which no other process sees."""

import contextlib
import shutil
import subprocess
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct


class Mounts(Struct, frozen=True):
    """A mount namespace that lives.

    Attributes:
        pid: of the process that holds it.
    """

    pid: int

    @property
    def command(self) -> Sequence[str]:
        """What starts a program in it."""
        return (
            "nsenter",
            *("-t", str(self.pid), "-U", "-m", "--preserve-credentials", "--wd=/"),
            "--",
        )

    def inside(self, path: Path) -> Path:
        """Return by which path a file in it is seen from here."""
        return Path(f"/proc/{self.pid}/root") / path.relative_to("/")


@contextlib.contextmanager
def mounts(script: str, *arguments: str) -> Iterator[Mounts]:
    """Hold a namespace in which a shell script has mounted something.

    Args:
        script: for ``sh``.
        arguments: its ``$1`` and so on.

    Raises:
        SkipTest: the system does not let us.
    """
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        raise unittest.SkipTest("unshare and nsenter are not installed (package util-linux)")
    holder = subprocess.Popen(  # noqa: S603  -- the script is the project's own
        [  # noqa: S607  -- found on PATH, as an operator's shell finds it
            "unshare",
            "-rm",
            "sh",
            "-c",
            f"set -e; {script}; echo ready; exec sleep 1000000",
            "sh",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = holder.stdout.readline() if holder.stdout else ""
        if line.strip() != "ready":
            reason = holder.communicate(timeout=10)[1].strip()
            raise unittest.SkipTest(f"no mounts of one's own here: {reason}")
        yield Mounts(holder.pid)
    finally:
        holder.kill()
        holder.communicate()
