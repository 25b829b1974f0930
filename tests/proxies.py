"""Real nginx and haproxy for tests, and a wire between them and a gateway that keeps what went by.

They run as the user who runs the tests, in the foreground, each in a folder of its own.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self, cast

from twisted.trial.unittest import SkipTest

from tests.doc_sessions import blocks
from tests.process import free_port
from tests.tcp_proxy import Stream, TcpProxy

_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
"""Where they are; what is in ``sbin`` is not on everybody's path."""

DOCS: Final = Path(__file__).parent.parent / "docs"

_PATIENCE: Final = 30.0
_POLL: Final = 0.01

NGINX_DEFAULTS: Final = 'proxy_http_version 1.1;\nproxy_set_header Connection "";\n'
"""What nginx 1.29.7 and later do unasked; older ones have to be told."""

_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    log_format passed_on '$upstream_status|$upstream_addr|$request';
    access_log {folder}/access.log passed_on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # A peer that sends no more still waits for its answer.
    proxy_ignore_client_abort on;
    lingering_timeout 100ms;
{http}
}}
"""

_HAPROXY: Final = """
global
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    log global
    log-format "%ci|%s|%ts|"
    timeout connect 30s
    timeout client 30s
    timeout server 30s
{rest}
"""


def documented(caption: str, changes: dict[str, str]) -> str:
    """Return an example of ``operations.rst``, changed so that it runs here.

    Args:
        caption: of the example.
        changes: what stands instead of what; each must have a place.

    Raises:
        KeyError: a change has none.
    """
    page = (DOCS / "operations.rst").read_text("utf-8")
    (text,) = (block.text for block in blocks(page) if block.caption == caption)
    for old, new in changes.items():
        if old not in text:
            raise KeyError(old)
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise SkipTest(f"{name} is not installed")
    return found


class Proxy:
    """A program that passes requests on.

    Args:
        text: of its configuration; ``{folder}`` and the names of ports, such as ``{front}``, are
            filled in.
        ports: names of ports that it listens on.

    Attributes:
        folder: where all its files are.
        ports: by name.
    """

    name: str
    log_name = "output"

    def __init__(self, text: str, ports: tuple[str, ...] = ("front",)) -> None:
        self._program = program(self.name)
        self.folder = Path(tempfile.mkdtemp(prefix=f"odingw-{self.name}-"))
        self.ports = {port: free_port() for port in ports}
        for port, number in self.ports.items():
            text = text.replace(f"{{{port}}}", str(number))
        self._file = self.folder / f"{self.name}.conf"
        self._file.write_text(self._whole(text.replace("{folder}", str(self.folder))))
        self._log = self.folder / self.log_name
        self._read = self._answered = self._begun = 0
        self._process: subprocess.Popen[bytes] | None = None

    def _whole(self, text: str) -> str:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def passed_on(self) -> tuple[int, int]:
        """Return how many requests it has had answered, and how many it has begun to pass on.

        Its own log says so; the line of a request is written after the answer has gone out.
        """
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for line in new.splitlines():
            answered, begun = self._judge(line)
            self._answered += answered
            self._begun += begun
        return self._answered, self._begun

    def _judge(self, line: bytes) -> tuple[int, int]:
        """Return the same of a line of the log."""
        raise NotImplementedError

    @property
    def output(self) -> str:
        """What it has written."""
        return (self.folder / "output").read_text(errors="replace")

    def start(self) -> Self:
        """Start it, and wait until it listens on all its ports."""
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                self._command(), stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        end = time.monotonic() + _PATIENCE
        for port in self.ports.values():
            while not _listens(port):
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{self.name} does not listen:\n{self.output}")
                time.sleep(_POLL)
        return self

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


class Nginx(Proxy):
    """nginx; ``text`` is what stands in its ``http`` block."""

    name = "nginx"
    log_name = "access.log"

    def _whole(self, text: str) -> str:
        return _NGINX.format(folder=self.folder, http=text)

    def _command(self) -> list[str]:
        return [self._program, "-p", f"{self.folder}", "-c", f"{self._file}", "-e", "stderr"]

    def _judge(self, line: bytes) -> tuple[int, int]:
        statuses, addresses, _ = line.split(b"|", 2)
        found = re.findall(rb"\d{3}", statuses)
        return sum(status not in (b"502", b"504") for status in found), addresses.count(b":")


class Haproxy(Proxy):
    """haproxy; ``text`` are its frontends and backends."""

    name = "haproxy"

    def _whole(self, text: str) -> str:
        return _HAPROXY.format(rest=text)

    def _command(self) -> list[str]:
        return [self._program, "-f", f"{self._file}", "-db"]

    def _judge(self, line: bytes) -> tuple[int, int]:
        _, server, state, *_ = (*line.split(b"|", 3), b"", b"")
        begun = server not in (b"", b"<NOSRV>")
        return begun and state[:1] == b"-", begun


_FINAL: Final = re.compile(rb"HTTP/1\.[01] [2-9]")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Tapped:
    """A stream's reader that keeps what it reads."""

    def __init__(self, reader: asyncio.StreamReader, kept: bytearray) -> None:
        self._reader = reader
        self._kept = kept

    async def read(self, size: int) -> bytes:
        """Read, and keep it."""
        data = await self._reader.read(size)
        self._kept += data
        return data


class Wire(TcpProxy):
    """What goes between a proxy and a gateway, and is kept until :meth:`forget`.

    Attributes:
        asked: what the proxy has sent.
        answered: what the gateway has sent.
        made: how many connections there have been.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.asked = bytearray()
        self.answered = bytearray()
        self.made = 0
        self._replies = 0

    @property
    def replies(self) -> int:
        """How many requests the gateway has answered since the start."""
        return self._replies + _final_replies(self.answered)

    def forget(self) -> None:
        """Drop what is kept; nothing may be under way."""
        self._replies += _final_replies(self.answered)
        self.asked.clear()
        self.answered.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        tapped = cast("asyncio.StreamReader", _Tapped(reader, self.asked))
        await super()._serve(tapped, writer)

    async def _connect(self) -> Stream | None:
        stream = await super()._connect()
        if stream is None:
            return None
        tapped = cast("asyncio.StreamReader", _Tapped(stream[0], self.answered))
        return tapped, stream[1]


def _final_replies(data: bytes | bytearray) -> int:
    return len(_FINAL.findall(data))
