"""A real coturn for tests, on loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import trustme
from twisted.trial.unittest import SkipTest

from odingw.turn.stun import TRANSACTION_BYTES, Kind, Message, Method, decode, encode
from tests.ports import free_port, free_range

START_TIME: Final = 30.0
"""Seconds that a start or a stop may take."""

RELAY_PORTS: Final = 255
"""How many allocations it can make; it takes its time to use a port again."""

HOST: Final = "127.0.0.1"
REALM: Final = "turn.test"


class Coturn:
    """A coturn with its own folder and ports, which it keeps when it is started again.

    Args:
        secrets: what it takes credentials of; all of them count. Without any, it takes those of
            the users that ``options`` names.
        tls: serve TLS too, with a certificate that nobody trusts, or with this one.
        options: more options of ``turnserver``.

    Attributes:
        port: where it listens, over UDP and TCP.
        tls_port: where it listens for TLS; None without.
        secrets: as given; may be changed before it is started again.

    Raises:
        SkipTest: coturn is not installed.
    """

    def __init__(
        self, *secrets: str, tls: bool | trustme.LeafCert = False, options: Sequence[str] = ()
    ) -> None:
        program = shutil.which("turnserver")
        if program is None:
            raise SkipTest("turnserver is not installed (package coturn)")
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.secrets = secrets
        self._ports = free_range(1 + RELAY_PORTS)
        self.port = self._ports[0]
        self._options = options
        self.tls_port = free_port() if tls else None
        if tls:
            certificate = trustme.CA().issue_cert(HOST) if tls is True else tls
            certificate.private_key_and_cert_chain_pem.write_to_path(self._pem)

    @property
    def _pem(self) -> Path:
        return self._folder / "certificate.pem"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return HOST, self.port

    @property
    def uris(self) -> tuple[str, ...]:
        """Everything that it serves."""
        plain = f"turn:{HOST}:{self.port}"
        tls = () if self.tls_port is None else (f"turns:{HOST}:{self.tls_port}",)
        return plain, f"{plain}?transport=tcp", *tls

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def start(self) -> Self:
        """Start and wait until it answers."""
        command: list[str | Path] = [
            self._program,
            *("-n", "--no-cli", "--no-dtls", "--allow-loopback-peers", "-m", "1"),
            "--use-auth-secret" if self.secrets else "--lt-cred-mech",
            *(f"--static-auth-secret={one}" for one in self.secrets),
            f"--realm={REALM}",
            f"--listening-ip={HOST}",
            f"--relay-ip={HOST}",
            f"--listening-port={self.port}",
            f"--min-port={self._ports[1]}",
            f"--max-port={self._ports[-1]}",
            *("-b", self._folder / "turndb"),
            f"--pidfile={self._folder / 'pid'}",
            "--log-file=stdout",
            *self._options,
        ]
        if self.tls_port is None:
            command.append("--no-tls")
        else:
            command += [f"--tls-listening-port={self.tls_port}"]
            command += [f"--cert={self._pem}", f"--pkey={self._pem}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + START_TIME
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"coturn does not answer:\n{self.log}")
        return self

    def stop(self) -> None:
        """Stop and wait for the end, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_TIME)
            self._process = None

    def remove(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether it answers over UDP, and takes connections over TCP."""
        # It may not answer Binding, and without a transport this allocates nothing.
        request = Message(Kind.REQUEST, Method.ALLOCATE, os.urandom(TRANSACTION_BYTES))
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.05)
            probe.sendto(encode(request), self.address)
            try:
                answered = decode(probe.recv(2048)).answers(request)
                for port in filter(None, (self.port, self.tls_port)):
                    socket.create_connection((HOST, port)).close()
            except (TimeoutError, ConnectionRefusedError):
                return False
        return answered
