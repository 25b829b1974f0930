"""Tasks reach a server although replies get lost: real sockets, a real process."""

import json
import socket
import ssl
import struct
import time
from typing import Any

import trustme
from twisted.trial.unittest import SynchronousTestCase

from tests.process import GatewayProcess, customer, report_params
from tests.test_gateway import metric

SERVER = "sfu.test:4433"
RESET = struct.pack("ii", 1, 0)


class Wire:
    """A connection on which replies can be left unread."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket = context.wrap_socket(plain, server_hostname="localhost") if context else plain

    def send_report(self, *headers: str) -> None:
        params = report_params(SERVER, ("room", 1))
        call = {"jsonrpc": "2.0", "id": 1, "method": "sfu.Report", "params": params}
        body = json.dumps(call)
        lines = ["POST /internal HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        self.socket.sendall("\r\n".join([*lines, *headers, "", body]).encode())

    def wait_for_reply(self) -> None:
        """Wait until a reply is here, and leave it unread."""
        self.socket.recv(1, socket.MSG_PEEK)

    def tasks(self) -> list[int]:
        """Read the reply and return the numbers of its tasks."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        while len(body) < length:
            body += self.socket.recv(65536)
        return numbers(json.loads(body))

    def is_open(self) -> bool:
        return self.socket.fileno() >= 0

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()


def numbers(answer: Any) -> list[int]:
    return [task["user_data"][0] for task in answer["result"]["tasks"]]


class DeliveryCase(SynchronousTestCase):
    """A gateway with one server that carries one room."""

    context: ssl.SSLContext | None = None

    def setUp(self) -> None:
        self.wires: list[Wire] = []
        self.gateway = self.start()
        self.addCleanup(self.gateway.stop)
        self.report()

    def start(self) -> GatewayProcess:
        return GatewayProcess(customer()).start()

    def wire(self) -> Wire:
        self.wires.append(Wire(self.gateway.port, self.context))
        return self.wires[-1]

    def report(self, *headers: str) -> list[int]:
        """Report over a connection of its own and return the tasks."""
        wire = self.wire()
        wire.send_report(*headers)
        tasks = wire.tasks()
        wire.close()
        return tasks

    def let_it_notice(self) -> None:
        """Wait until the gateway has seen which connections are over."""
        end = time.monotonic() + 30
        # The one that asks counts too.
        while metric(self.gateway, "odingw_open_connections") != 1 + sum(
            map(Wire.is_open, self.wires)
        ):
            self.assertLess(time.monotonic(), end)

    def queue(self, *data: int) -> None:
        for number in data:
            answer = self.gateway.manage("RoomUpdate", room_id="room", user_data=[number])
            self.assertEqual({}, answer["result"])


class PlainTests(DeliveryCase):
    def test_a_reply_that_arrived_is_not_repeated(self) -> None:
        for headers in ((), ("Connection: close",)):
            self.queue(1, 2, 3)
            self.assertEqual([1, 2, 3], self.report(*headers))
            self.assertEqual([], self.report(*headers), headers)

    def test_the_next_request_of_a_connection_says_that_the_reply_arrived(self) -> None:
        self.queue(1)
        wire = self.wire()
        for tasks in ([1], [2], [3]):
            wire.send_report()
            self.assertEqual(tasks, wire.tasks())
            self.queue(tasks[0] + 1)
        wire.reset()
        self.let_it_notice()
        self.assertEqual([3, 4], self.report(), "the reset took the last reply with it")

    def test_a_reset_before_the_reply_is_read_loses_nothing(self) -> None:
        for headers in ((), ("Connection: close",)):
            self.queue(1, 2, 3)
            wire = self.wire()
            wire.send_report(*headers)
            wire.wait_for_reply()
            wire.reset()
            self.let_it_notice()
            self.queue(4)
            self.assertEqual([1, 2, 3, 4], self.report(), headers)
            self.assertEqual([], self.report(), headers)

    def test_closing_with_the_reply_unread_loses_nothing(self) -> None:
        for headers in ((), ("Connection: close",)):
            self.queue(1, 2)
            wire = self.wire()
            wire.send_report(*headers)
            wire.wait_for_reply()
            wire.close()
            self.let_it_notice()
            self.assertEqual([1, 2], self.report(), headers)

    def test_a_reset_at_once_loses_nothing(self) -> None:
        self.queue(1, 2)
        wire = self.wire()
        wire.send_report()
        wire.reset()
        self.let_it_notice()
        self.assertEqual([1, 2], self.report())

    def test_in_flight_tasks_are_not_sent_to_a_second_connection(self) -> None:
        self.queue(1)
        first, second = self.wire(), self.wire()
        first.send_report()
        first.wait_for_reply()
        second.send_report()
        self.assertEqual([], second.tasks())
        first.reset()
        self.let_it_notice()
        second.send_report()
        self.assertEqual([1], second.tasks())

    def test_a_poison_task_is_given_up(self) -> None:
        self.queue(1, 2)
        for attempt in range(4):
            wire = self.wire()
            wire.send_report()
            wire.wait_for_reply()
            self.assertNotIn("is dropped", self.gateway.log, attempt)
            wire.reset()
            self.let_it_notice()
        self.gateway.wait_for("is dropped")
        self.assertEqual([2], self.report())

    def test_a_notification_takes_no_tasks(self) -> None:
        self.queue(1)
        params = report_params(SERVER, ("room", 1))
        body = json.dumps({"jsonrpc": "2.0", "method": "sfu.Report", "params": params})
        status, _, reply = self.gateway.request("POST", "/internal", body)
        self.assertEqual((204, b""), (status, reply))
        self.assertEqual([1], self.report())

    def test_tasks_in_a_batch(self) -> None:
        self.queue(1)
        params = report_params(SERVER, ("room", 1))
        call = {"jsonrpc": "2.0", "id": 1, "method": "sfu.Report", "params": params}
        _, _, reply = self.gateway.request("POST", "/internal", json.dumps([call, call]))
        self.assertEqual([[1], []], [numbers(answer) for answer in json.loads(reply)])
        self.assertEqual([], self.report())


class TlsTests(DeliveryCase):
    """The same over TLS, where peers often leave without saying goodbye."""

    def start(self) -> GatewayProcess:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["ssl:{port}:interface=127.0.0.1", '
            '"tcp:{admin}:interface=127.0.0.1"]\nadmin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            '[state]\nurl = "memory:"\n',
        )
        certificate.private_key_pem.write_to_path(gateway.folder / "privkey.pem")
        certificate.cert_chain_pems[0].write_to_path(gateway.folder / "fullchain.pem")
        return gateway.start()

    def queue(self, *data: int) -> None:
        tls, self.gateway.port = self.gateway.port, self.gateway.admin
        super().queue(*data)
        self.gateway.port = tls

    def test_a_reply_that_arrived_is_not_repeated(self) -> None:
        for headers in ((), ("Connection: close",)):
            self.queue(1, 2)
            self.assertEqual([1, 2], self.report(*headers))
            self.assertEqual([], self.report(*headers), headers)

    def test_goodbye_as_tls_wants_it(self) -> None:
        self.queue(1)
        wire = self.wire()
        wire.send_report()
        self.assertEqual([1], wire.tasks())
        assert isinstance(wire.socket, ssl.SSLSocket)
        wire.socket.unwrap().close()
        self.assertEqual([], self.report())

    def test_a_reset_loses_nothing(self) -> None:
        self.queue(1, 2)
        wire = self.wire()
        wire.send_report()
        assert isinstance(wire.socket, ssl.SSLSocket)
        wire.socket.read(1)
        wire.reset()
        self.let_it_notice()
        self.assertEqual([1, 2], self.report())
