"""A peer that answers HTTP requests with whatever bytes a test wants, in threads of its own."""

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Self

import trustme

_TIME = 10.0

Answer = Callable[[bytes], bytes | None]
"""From a whole request to a whole reply; None: none ever comes."""


def http_reply(body: bytes | str, status: str = "200 OK", *headers: str) -> bytes:
    """Return a reply with its length; the connection stays open."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + raw


def call_of(request: bytes) -> Any:
    """Return the JSON-RPC call in a request."""
    return json.loads(request.partition(b"\r\n\r\n")[2])


def rpc(status: str = "200 OK", *headers: str, **members: Any) -> Answer:
    """Return what answers each call with these members, under the call's own id."""

    def answer(request: bytes) -> bytes:
        reply = {"jsonrpc": "2.0", "id": call_of(request)["id"], **members}
        return http_reply(json.dumps(reply), status, *headers)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Return what answers the first call so, the second so, and so on; the last for ever."""
    left = list(answers)

    def answer(request: bytes) -> bytes | None:
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


class Peer:
    """Listens on the loopback interface.

    Args:
        answer: answers requests.
        end: close each connection after the reply; also done where the reply is empty.
        certificate: to speak TLS with.

    Attributes:
        requests: what came in.
        connections: all there were.
        url: of this peer.
    """

    def __init__(
        self, answer: Answer, *, end: bool = False, certificate: trustme.LeafCert | None = None
    ) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections: list[socket.socket] = []
        self._end = end
        self._ended = threading.Event()
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            certificate.configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything."""
        # Closing alone does not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def wait_for_end(self) -> None:
        """Wait until the other side has closed a connection."""
        if not self._ended.wait(_TIME):
            raise AssertionError("no connection has ended")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            while request := _read(connection):
                self.requests.append(request)
                reply = self.answer(request)
                if reply is None:
                    continue
                connection.sendall(reply)
                if self._end or not reply:
                    connection.shutdown(socket.SHUT_WR)
                    return
            self._ended.set()
        except OSError:
            self._ended.set()


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while len(body) < int(length[1] if length else 0):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
