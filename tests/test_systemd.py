"""Sockets that systemd hands over, with the real tool that does it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.process import BIN, free_port

TOOL = shutil.which("systemd-socket-activate")


class SocketActivationTests(SynchronousTestCase):
    def test_the_first_connection_starts_the_gateway_and_is_served(self) -> None:
        if TOOL is None:
            raise SkipTest("systemd-socket-activate is not installed (package systemd)")
        folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, folder)
        port = free_port()
        command = [
            TOOL,
            "-l",
            f"127.0.0.1:{port}",
            "--fdname=public",
            str(BIN / "twistd"),
            "-n",
            "--pidfile=",
            "odingw",
            "--listen",
            "systemd:domain=INET:name=public",
            "--admin",
            f"tcp:{free_port()}:interface=127.0.0.1",
            "--internal",
            f"tcp:{free_port()}:interface=127.0.0.1",
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.send_signal, signal.SIGTERM)
        with self.first_connection(port) as raw:
            raw.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            reply = b""
            while chunk := raw.recv(65536):
                reply += chunk
        self.assertTrue(reply.endswith(b"pong"), (folder / "log").read_text())

    def first_connection(self, port: int) -> socket.socket:
        """Connect as soon as the tool listens."""
        end = time.monotonic() + 30
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=30)
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end, "the tool does not listen")
                os.sched_yield()
