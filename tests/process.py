"""A real ``twistd odingw`` process for tests, and short ways to talk to it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, Self

from odingw.tokens import AccessKey, TokenGenerator
from tests.forks import Command, Fork
from tests.ports import free_port as free_port

BIN: Final = Path(sys.executable).parent
DATA: Final = Path(__file__).parent / "data"
CONSENT: Final = 'internal.allow = ["127.0.0.0/8", "::1/128"]\n'
"""For ``[gateway]``: servers on this host may report to the public endpoint."""
LASTING: Final = "disable_timeout = 3600\nremove_timeout = 7200\n"
"""Servers of tests report once, and tests take as long as they take."""

START_TIME: Final = 60.0

MASTER_KEY: Final = "VGhpcyBpcyBhIHN1cGVyIHNlY3JldCBtYXN0ZXIga2V5IQ=="
ACCESS_KEY: Final = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")


def customer(name: str = "acme", key: AccessKey = ACCESS_KEY, **limits: int) -> str:
    """Return the TOML of a customer with one access key."""
    lines = [f'[[gateway.customers]]\nid = "{name}"']
    lines += [f"{limit} = {value}" for limit, value in limits.items()]
    jwk = key.public_jwk()
    lines.append(
        "[[gateway.customers.access_keys]]\npublic_key = "
        f'{{ kid = "{jwk.kid}", kty = "{jwk.kty}", crv = "{jwk.crv}", x = "{jwk.x}" }}'
    )
    return "\n".join(lines) + "\n"


class GatewayProcess:
    """A gateway with its own folder and ports.

    Args:
        gateway: TOML of the ``[gateway]`` table, and any tables after it. With no word of
            ``internal``, servers may report to the public endpoint.
        before: TOML of the other tables; ``{port}``, ``{admin}`` and ``{folder}`` are filled in.
        options: of ``twistd odingw``.
    """

    def __init__(
        self,
        gateway: str = "",
        before: str = "",
        *options: str,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.port, self.admin = free_port(), free_port()
        self.config = self.folder / "odingw.toml"
        self._before = before or (
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n[state]\nurl = "memory:"\n'
        )
        self.configure(gateway)
        self.options = options
        self.twistd: Command = ()
        self._lines: list[str] = []
        self._begin = 0
        self._heard = threading.Condition()
        self.process: Fork | subprocess.Popen[str] | None = None

    def configure(self, gateway: str) -> None:
        """Write the configuration file."""
        before = self._before
        for name in ("port", "admin", "folder"):
            before = before.replace(f"{{{name}}}", str(getattr(self, name)))
        consent = "" if "internal" in before + gateway else CONSENT
        lasting = "" if "disable_timeout" in gateway else LASTING
        own = f'[gateway]\nmaster_key = "{MASTER_KEY}"\n{consent}{lasting}{gateway}'
        self.config.write_text(before + own)

    def start(self, until: str = "has started") -> Self:
        """Start, from a folder that is not the project's, and wait until it serves.

        Args:
            until: what its log must say, if not that.
        """
        arguments: Command = ("-n", "--pidfile=", "odingw", "--config", self.config, *self.options)
        if self.twistd:
            self.process = subprocess.Popen(
                [*self.twistd, *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        else:
            self.process = Fork(arguments, self.folder)
        self._hear(self.process)
        self.wait_for(until)
        return self

    def _hear(self, process: "Fork | subprocess.Popen[str]") -> None:
        """Listen to a process; what was said by the one before it is not waited for."""
        self._begin = len(self._lines)
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def _read(self, process: "Fork | subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            with self._heard:
                self._lines.append(line)
                self._heard.notify_all()
        with self._heard:
            self._lines.append("<end>")
            self._heard.notify_all()

    @property
    def log(self) -> str:
        """What it has written so far; once it has ended, all of it."""
        if self.process is not None and self.process.poll() is not None:
            self._reader.join(START_TIME)
        with self._heard:
            return "".join(self._lines)

    def wait_for(self, *texts: str) -> str:
        """Wait until one of the texts stands in the log since its start, and return the log."""
        end = time.monotonic() + START_TIME
        with self._heard:
            while not any(text in line for line in self._lines[self._begin :] for text in texts):
                ended = "<end>" in self._lines[self._begin :]
                if ended or not self._heard.wait(end - time.monotonic()):
                    raise AssertionError(f"no {texts} in the log:\n{''.join(self._lines)}")
        return self.log

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(START_TIME)
        shutil.rmtree(self.folder, ignore_errors=True)
        return status

    def request(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        port: int | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        path: str = "/",
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Call a method and return the answer, an object with ``result`` or ``error``."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        _, _, reply = self.request("POST", path, body, headers)
        return json.loads(reply)

    def connect(self, room: str, user: str = "user", **claims: Any) -> Any:
        """Call Connect with a fresh token."""
        return self.call("Connect", token=token(room, user, **claims))

    def manage(self, method: str, **params: Any) -> Any:
        """Make a management call with a fresh token for its room."""
        return self.call(method, params, token=token(params["room_id"], subject=method))

    def report(self, address: str, *rooms: tuple[str, int], path: str = "/internal") -> Any:
        """Report as a server, and return the answer."""
        return self.call("sfu.Report", report_params(address, *rooms), path=path)


def token(room: str, user: str = "user", *, key: AccessKey = ACCESS_KEY, **claims: Any) -> str:
    """Return a client token that is valid now."""
    return TokenGenerator(key).create_token(room, user, now=int(time.time()), **claims)


def report_params(address: str, *rooms: tuple[str, int]) -> dict[str, Any]:
    """Return the params of a report with rooms of ``acme``, given as name and peers."""
    return {
        "public_endpoint": address,
        "version": "1.5.0",
        "load": 0.0,
        "clients": sum(peers for _, peers in rooms),
        "rooms": [
            {
                "id": ["acme", name],
                "customer": "acme",
                "age": {"secs": 1, "nanos": 0},
                "peers": peers,
            }
            for name, peers in rooms
        ],
    }
