"""A real redis-server for tests, on loopback, and a client of few lines that waits for answers."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import quote

import trustme

from tests.process import free_port

HOST: Final = "127.0.0.1"
TLS_HOST: Final = "localhost"

START_TIME: Final = 30.0
"""Seconds that a start or a stop may take."""

ANSWER_TIME: Final = 10.0
"""Seconds of silence after which a client gives up, unless it is told otherwise."""

_PROBE_TIME: Final = 1.0
_MISSING: Final = "redis-server is not installed (package redis-server)"

GATEWAY: Final = "odingw"
"""The user that ``etc/redis-users.acl`` has for gateways."""

_PASSWORD: Final = "of-gateways"

RULE: Final = (Path(__file__).parent.parent / "etc/redis-users.acl").read_text("utf-8")

Address: TypeAlias = tuple[str, int]


def require_redis(case: unittest.TestCase) -> None:
    """Skip a test where there is no redis-server.

    Raises:
        unittest.SkipTest: it is not installed.
    """
    if shutil.which("redis-server") is None:
        case.skipTest(_MISSING)


class RedisClient:
    """A connection to Redis that blocks until there is an answer; RESP 2.

    Args:
        address: where to connect.
        password: to log in with; None does not log in.
        username: of the ACL user; None is the default user.
        tls: what to verify the server with; None speaks plain TCP.
        timeout: seconds of silence after which a call fails.

    Raises:
        OSError: there is no connection, or no TLS; TimeoutError when nothing answers.
        RuntimeError: the login is refused.
    """

    def __init__(
        self,
        address: Address,
        *,
        password: str | None = None,
        username: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = ANSWER_TIME,
    ) -> None:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(address, timeout))
            if tls is not None:
                connection = stack.enter_context(
                    tls.wrap_socket(connection, server_hostname=TLS_HOST)
                )
            self._socket = connection
            self._answers = stack.enter_context(connection.makefile("rb"))
            if password is not None:
                self.call("AUTH", *(() if username is None else (username,)), password)
            self._opened = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def timeout(self) -> float | None:
        """Seconds of silence after which a call fails."""
        return self._socket.gettimeout()

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def call(self, *args: str | bytes) -> Any:
        """Send a command and return its answer.

        Returns:
            bytes for a bulk string, str for a status such as ``OK``, int, None, or a list of these.

        Raises:
            RuntimeError: Redis answers with an error, which is the text.
            ConnectionError: it closes the connection.
            TimeoutError: it does not answer; the connection is of no more use.
        """
        self.send(*args)
        return self.receive()

    def send(self, *args: str | bytes) -> None:
        """Send a command, and leave its answer to :meth:`receive`."""
        parts = [arg.encode() if isinstance(arg, str) else arg for arg in args]
        lines = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(one), one) for one in parts)]
        self._socket.sendall(b"".join(lines))

    def receive(self) -> Any:
        """Return the next answer, or what was published; as :meth:`call`."""
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis has closed the connection")
        kind, value = line[:1], line[1:-2]
        if kind == b"+":
            return value.decode()
        if kind == b"-":
            raise RuntimeError(value.decode())
        number = int(value)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self.receive() for _ in range(number)]
        if kind != b"$":
            raise RuntimeError(f"not an answer of Redis: {line!r}")
        text = self._answers.read(number + 2)
        if len(text) < number + 2:
            raise ConnectionError("Redis has closed the connection")
        return text[:-2]

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()


class RedisServer:
    """A redis-server with its own folder and port, which it keeps when it is started again.

    Args:
        password: that clients need; None lets everybody in.
        username: of an ACL user who has the password, while the default user is off.
        tls: listen for TLS, and for nothing else.
        persistent: keep the data in an append-only file, which is synced every second; without,
            they end with the process.
        client_certificate: want one, of the same CA, from those who connect with TLS.
        sentinel: be a sentinel.
        options: more lines of its configuration.

    Attributes:
        port: where it listens.
        ca_path: PEM of the CA whose certificate it shows with TLS, for ``localhost`` and 127.0.0.1;
            the file exists with ``tls`` only.
        client_pem: PEM of a certificate of that CA for those who connect, and its key.
        options: as given; others count from the next start on.

    Raises:
        SkipTest: Redis is not installed.
        ValueError: a user without a password.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        username: str | None = None,
        tls: bool = False,
        persistent: bool = True,
        client_certificate: bool = False,
        sentinel: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise unittest.SkipTest(_MISSING)
        if username is not None and password is None:
            raise ValueError("an ACL user needs a password")
        self._program = program
        self._password = password
        self._username = username
        self._persistent = persistent
        self._client_certificate = client_certificate
        self._sentinel = sentinel
        self.options = options
        self._folder = Path(tempfile.mkdtemp(prefix="odingw-redis-"))
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._said = 0
        self.port = free_port()
        self.ca_path = self._folder / "ca.pem"
        self.client_pem = self._folder / "client.pem"
        self._tls: ssl.SSLContext | None = None
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_path)
            certificate = authority.issue_cert(TLS_HOST, HOST)
            certificate.private_key_and_cert_chain_pem.write_to_path(self._pem)
            authority.issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(
                self.client_pem
            )
            self._tls = ssl.create_default_context(cafile=self.ca_path)
            self._tls.load_cert_chain(self.client_pem)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return HOST, self.port

    @property
    def log(self) -> str:
        """What it has written so far, in all its runs."""
        return self._log.read_text() if self._log.exists() else ""

    def let_gateways_in(self, prefix: str = GATEWAY) -> str:
        """Make the user of ``etc/redis-users.acl``, and return its URL.

        Args:
            prefix: of the names of keys, instead of that in the file.
        """
        rule = RULE.replace("{odingw", f"{{{prefix}").replace(">change-me", f">{_PASSWORD}")
        name, *words = rule.split()[1:]
        self.command("ACL", "SETUSER", name, "reset", *words)
        return f"redis://{name}:{_PASSWORD}@{HOST}:{self.port}/0"

    def url(self, database: int = 0, port: int | None = None) -> str:
        """Return the URL of a database, with the login; by way of another port if one is given."""
        user = "" if self._username is None else quote(self._username, safe="")
        login = "" if self._password is None else f"{user}:{quote(self._password, safe='')}@"
        scheme, host = ("redis", HOST) if self._tls is None else ("rediss", TLS_HOST)
        return f"{scheme}://{login}{host}:{self.port if port is None else port}/{database}"

    def start(self, *, wait: bool = True) -> Self:
        """Start, and wait until the data are loaded and it answers.

        Args:
            wait: or do not.

        Raises:
            AssertionError: it does not in time, or it runs already.
        """
        if self._process is not None:
            raise AssertionError("redis-server runs already")
        (self._folder / "redis.conf").write_text(self._configuration())
        end = time.monotonic() + START_TIME
        self._spawn()
        while wait and not self._answers():
            assert self._process is not None
            ended = self._process.poll() is not None
            said = self.log[self._said :]
            if ended and "Address already in use" in said and time.monotonic() < end:
                # While it was down, an outgoing connection of somebody else got its port.
                self._spawn()
            elif ended or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"redis-server does not answer:\n{said}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Let it write what it has and end, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self.resume()
            self._process.wait(START_TIME)
            self._process = None

    def kill(self) -> None:
        """Kill it, if it runs.

        What it has answered for is in its file, unless the disk was so slow that a sync was under
        way: then up to 2 s of it are lost. ``CONFIG SET appendfsync always`` excludes that.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIME)
            self._process = None
            self._paused = False

    def pause(self) -> None:
        """Let it hang: connections are taken, and nothing is answered."""
        if self._process is None or self._process.poll() is not None:
            raise AssertionError("redis-server does not run")
        if not self._paused:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
            self._paused = True

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        if self._process is not None and self._paused:
            self._process.send_signal(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """Kill it, and remove its folder and so its data."""
        try:
            self.kill()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def client(
        self, address: Address | None = None, *, timeout: float = ANSWER_TIME
    ) -> RedisClient:
        """Connect and log in, directly or by way of another address."""
        return RedisClient(
            address or self.address,
            password=self._password,
            username=self._username,
            tls=self._tls,
            timeout=timeout,
        )

    def command(self, *args: str | bytes, database: int = 0, timeout: float = ANSWER_TIME) -> Any:
        """Send a command over a connection of its own, and return its answer.

        Args:
            args: the command's words.
            database: which one it is for.
            timeout: seconds of silence after which it fails.

        Raises:
            RuntimeError: Redis answers with an error.
            OSError: it does not run, or closes the connection; TimeoutError if it hangs.
        """
        with self.client(timeout=timeout) as client:
            if database:
                client.call("SELECT", str(database))
            return client.call(*args)

    @property
    def _pem(self) -> Path:
        return self._folder / "certificate.pem"

    def _configuration(self) -> str:
        lines = [
            f"bind {HOST}",
            f'dir "{self._folder}"',
            'save ""',
            f"appendonly {'yes' if self._persistent else 'no'}",
            "appendfsync everysec",
        ]
        if self._tls is None:
            lines.append(f"port {self.port}")
        else:
            wanted = "yes" if self._client_certificate else "no"
            lines += [f"port 0\ntls-port {self.port}", f"tls-auth-clients {wanted}"]
            lines += [f'tls-cert-file "{self._pem}"', f'tls-key-file "{self._pem}"']
            lines.append(f'tls-ca-cert-file "{self.ca_path}"')
        if self._username is not None:
            lines.append("user default off")
        if self._password is not None:
            # A digest needs no quotes, whatever the password is made of.
            digest = hashlib.sha256(self._password.encode()).hexdigest()
            lines.append(f"user {self._username or 'default'} on #{digest} ~* &* +@all")
        return "\n".join([*lines, *self.options]) + "\n"

    def _spawn(self) -> None:
        self._said = len(self.log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    self._folder / "redis.conf",
                    *(["--sentinel"] if self._sentinel else []),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _answers(self) -> bool:
        """Whether this process answers, and not another one that has got the port."""
        assert self._process is not None
        own = b"process_id:%d\r\n" % self._process.pid
        try:
            with self.client(timeout=_PROBE_TIME) as client:
                return client.call("PING") == "PONG" and own in client.call("INFO", "server")
        except (OSError, RuntimeError):
            return False
