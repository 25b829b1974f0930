"""Requests that come when they come, not when the server is ready for them: an open loop."""

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import attrs

from benchmarks.load import is_good, split_answer
from benchmarks.options import BenchmarkError

_CHUNK: Final = 262_144
_PATIENCE: Final = 30.0


@attrs.define
class Stream:
    """Requests of one kind, evenly spread over time.

    Attributes:
        requests: sent one after the other, again and again.
        rate: how many a second.
        wanted: what a good answer holds.
        connections: how many are used.
        times: found: seconds from the planned time of each request to its answer.
        errors: found: answers that were not good.
    """

    requests: Sequence[bytes]
    rate: float
    wanted: bytes
    connections: int
    times: list[float] = attrs.field(factory=list)
    errors: int = 0
    free: list["_Link"] = attrs.field(factory=list)
    waiting: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    planned: int = 0

    def percentile(self, share: float) -> float:
        """Return the milliseconds within which a share of requests was answered."""
        times = sorted(self.times)
        return times[min(len(times) - 1, int(len(times) * share))] * 1e3


class _Link:
    def __init__(self, port: int, stream: Stream) -> None:
        self.stream = stream
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.planned = 0.0
        self.unsent = b""
        self.received = b""

    def send(self) -> bool:
        """Send what goes; tell whether all has gone."""
        try:
            sent = self.socket.send(self.unsent)
        except BlockingIOError:
            sent = 0
        self.unsent = self.unsent[sent:]
        return not self.unsent


class OpenLoop:
    """Sends streams of requests to a port at their planned times.

    It spins, so that it is never late; it needs a core of its own.

    Attributes:
        longest_silence: the longest time, seconds, in which no answer came although at least one
            request was out: no step of the server's reactor was longer than that.
    """

    def __init__(self, port: int, streams: Sequence[Stream]) -> None:
        self._port = port
        self._streams = streams
        self._links: dict[int, _Link] = {}
        self._out = 0
        self._since = 0.0
        self._poll = select.epoll()
        self.longest_silence = 0.0

    def run(self, seconds: float) -> None:
        """Send for so long, and wait for what is still out.

        Raises:
            BenchmarkError: the server closes a connection, or does not answer.
        """
        with ExitStack() as stack:
            for stream in self._streams:
                for _ in range(stream.connections):
                    link = _Link(self._port, stream)
                    stack.callback(link.socket.close)
                    self._links[link.socket.fileno()] = link
                    stream.free.append(link)
                    self._poll.register(link.socket, select.EPOLLIN)
            stack.callback(self._poll.close)
            began = time.perf_counter()
            end = began + seconds
            while (now := time.perf_counter()) < end or self._out:
                if now > end + _PATIENCE:
                    raise BenchmarkError("the server has not answered for too long")
                for stream in self._streams:
                    self._plan(stream, began, min(now, end))
                for number, event in self._poll.poll(0):
                    self._happened(self._links[number], event)

    def _plan(self, stream: Stream, began: float, now: float) -> None:
        while (due := began + stream.planned / stream.rate) < now:
            stream.waiting.append((due, stream.requests[stream.planned % len(stream.requests)]))
            stream.planned += 1
        while stream.waiting and stream.free:
            link = stream.free.pop()
            link.planned, link.unsent = stream.waiting.popleft()
            if not self._out:
                self._since = time.perf_counter()
            self._out += 1
            if not link.send():
                self._poll.modify(link.socket, select.EPOLLIN | select.EPOLLOUT)

    def _happened(self, link: _Link, event: int) -> None:
        if event & select.EPOLLOUT and link.send():
            self._poll.modify(link.socket, select.EPOLLIN)
        if not event & ~select.EPOLLOUT:
            return
        data = link.socket.recv(_CHUNK)
        if not data:
            raise BenchmarkError("the server has closed a connection")
        link.received += data
        answer = split_answer(link.received)
        if answer is None:
            return
        now = time.perf_counter()
        self.longest_silence = max(self.longest_silence, now - self._since)
        self._since = now
        self._out -= 1
        stream = link.stream
        stream.times.append(now - link.planned)
        stream.errors += not is_good(answer, stream.wanted)
        link.received = b""
        stream.free.append(link)
