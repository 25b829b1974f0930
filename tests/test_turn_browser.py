"""The whole way: a page, its client, the gateway, and a call through a real TURN server."""

import atexit
import functools
import http.server
import json
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from odingw.turn.settings import MAX_USERNAME
from tests.browser import shared_browser
from tests.coturn import Coturn
from tests.process import GatewayProcess, customer
from tests.test_gateway import metric
from tests.test_turn_http import RSA_KEY, rs256, spki

SECRET = "a secret for coturn and the gateway"

_CALL = """
async (info) => {
  const ends = [0, 1].map(() => new RTCPeerConnection(
    { iceServers: info.iceServers, iceTransportPolicy: "relay" }));
  const kinds = new Set();
  ends.forEach((end, index) => {
    end.onicecandidate = ({ candidate }) => {
      if (candidate && candidate.candidate) {
        kinds.add(candidate.type);
        ends[1 - index].addIceCandidate(candidate);
      }
    };
  });
  const echo = new Promise((resolve, reject) => {
    ends[1].ondatachannel = ({ channel }) => {
      channel.onmessage = ({ data }) => channel.send("echo " + data);
    };
    const channel = ends[0].createDataChannel("test");
    channel.onopen = () => channel.send("hello");
    channel.onmessage = ({ data }) => resolve(data);
    setTimeout(() => reject(new Error("no echo: " + ends[0].iceConnectionState)), 20000);
  });
  await ends[0].setLocalDescription(await ends[0].createOffer());
  await ends[1].setRemoteDescription(ends[0].localDescription);
  await ends[1].setLocalDescription(await ends[1].createAnswer());
  await ends[0].setRemoteDescription(ends[1].localDescription);
  const answer = await echo;
  ends.forEach((end) => end.close());
  return [answer, ...kinds];
}
"""

_GATHER = """
(info) => new Promise((resolve) => {
  const kinds = new Set();
  try {
    const end = new RTCPeerConnection({ ...info, iceTransportPolicy: "relay" });
    end.onicecandidate = ({ candidate }) => {
      if (candidate) {
        if (candidate.candidate) kinds.add(candidate.type);
        return;
      }
      end.close();
      resolve([...kinds]);
    };
    end.createDataChannel("test");
    end.setLocalDescription();
  } catch {
    resolve([]);
  }
})
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>game</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Site(NamedTuple):
    """A TURN server, the gateway that hands it out, and a page of another origin."""

    turn: Coturn
    gateway: GatewayProcess
    page_port: int


@functools.cache
def shared_site() -> Site:
    """Return a site that runs for as long as this process; its own page may ask, and one other."""
    turn = Coturn(SECRET)
    atexit.register(turn.remove)
    host, port = turn.start().address
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    page_port = pages.server_address[1]
    gateway = GatewayProcess(
        customer(),
        '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
        'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
        f'[turn]\nsecret_keys = ["{SECRET}"]\nuser_claim = "sub"\nwatch_interval = 0.5\n'
        f'turn_uris = ["turn:{host}:{port}", "turn:{host}:{port}?transport=tcp"]\n'
        f'allowed_origin = ["https://app.example", "http://localhost:{page_port}"]\n'
        f'public_keys = ["{spki(RSA_KEY)}"]\n',
    )
    atexit.register(gateway.stop)
    return Site(turn, gateway.start(), page_port)


class CallTests(SynchronousTestCase):
    """A page of one origin, the gateway at another."""

    def in_page(self, act: Callable[[str], str], host: str = "localhost") -> object:
        """Run a script in a page; it is given the gateway's address."""
        site = shared_site()
        page = shared_browser().new_page()
        self.addCleanup(page.close)
        page.navigate(f"http://{host}:{site.page_port}/")
        return page.evaluate(act(f"http://127.0.0.1:{site.gateway.port}"))

    def test_pages_of_other_origins_get_nothing(self) -> None:
        def act(gateway: str) -> str:
            bearer = f"{{ headers: {{ Authorization: 'Bearer {rs256()}' }} }}"
            return f"fetch('{gateway}/turn', {bearer}).then((answer) => answer.status, String)"

        self.assertEqual(200, self.in_page(act))
        self.assertEqual("TypeError: Failed to fetch", self.in_page(act, "127.0.0.1"))

    def test_the_clients_tell_why_they_are_refused(self) -> None:
        expired = rs256(exp=1)

        def act(gateway: str) -> str:
            return (
                f"import('{gateway}/clients/turnRestClient-2.1.0.js')"
                f".then((client) => client.getTurnServiceInfo('{gateway}/turn', '{expired}'))"
                ".catch(({ status, reason }) => [status, reason])"
            )

        self.assertEqual([401, "token has expired"], self.in_page(act))

    def test_a_data_channel_through_the_relay(self) -> None:
        def act(gateway: str) -> str:
            script = f"{gateway}/clients/turnRestClient-1.3.0.js"
            return (
                "new Promise((resolve, reject) => {"
                " const script = document.createElement('script');"
                f" script.src = {json.dumps(script)}; script.onload = resolve;"
                " script.onerror = reject; document.head.append(script); })"
                f".then(() => TurnService.getTurnServiceInfo('{gateway}/turn', '{rs256()}'))"
                f".then({_CALL})"
            )

        self.assertEqual(["echo hello", "relay"], self.in_page(act))

    def test_the_module_client_too(self) -> None:
        def act(gateway: str) -> str:
            return (
                f"import('{gateway}/clients/turnRestClient-2.1.0.js')"
                f".then((client) => client.getTurnServiceInfo('{gateway}/turn', '{rs256()}'))"
                f".then({_CALL})"
            )

        self.assertEqual(["echo hello", "relay"], self.in_page(act))

    def test_a_user_as_long_as_can_be(self) -> None:
        """Longer ones become their hash; with 509 bytes Chromium finds no relay for 40 seconds."""
        long = rs256(sub="x" * (MAX_USERNAME - len("1700000000:")))

        def act(gateway: str) -> str:
            return (
                f"fetch('{gateway}/turn', {{ headers: {{ Authorization: 'Bearer {long}' }} }})"
                f".then((response) => response.json()).then({_GATHER})"
            )

        self.assertEqual(["relay"], self.in_page(act))


class WatchTests(SynchronousTestCase):
    """A TURN server that stops answering is left out until it answers again."""

    def test_two_servers_one_of_which_is_stopped(self) -> None:
        servers = [Coturn(SECRET), Coturn(SECRET)]
        for server in servers:
            self.addCleanup(server.remove)
            server.start()
        first, second = (f"turn:{host}:{port}" for host, port in (s.address for s in servers))
        gateway = GatewayProcess(
            customer(),
            '[listen]\npublic = ["tcp:{port}:interface=127.0.0.1"]\n'
            'admin = ["tcp:{admin}:interface=127.0.0.1"]\n'
            f'[turn]\nsecret_keys = ["{SECRET}"]\nignore_jwt = true\nwatch_interval = 0.3\n'
            f'turn_uris = ["{first}", "{second}"]\n',
        ).start()
        self.addCleanup(gateway.stop)

        def uris() -> list[str]:
            found: list[str] = json.loads(gateway.request("GET", "/turn")[2])["uris"]
            return found

        self.assertEqual([first, second], uris())
        self.assertIn("ignore_jwt", gateway.log)
        servers[0].stop()
        self.wait_until(lambda: uris() == [second])
        self.assertEqual(0, metric(gateway, f'odingw_turn_server_up{{uri="{first}"}}'))
        servers[1].stop()
        self.wait_until(lambda: metric(gateway, f'odingw_turn_server_up{{uri="{second}"}}') == 0)
        self.assertEqual([first, second], uris(), "never none of them")
        for server in servers:
            server.start()
        self.wait_until(lambda: metric(gateway, f'odingw_turn_server_up{{uri="{first}"}}') == 1)
        self.wait_until(lambda: metric(gateway, f'odingw_turn_server_up{{uri="{second}"}}') == 1)
        self.assertEqual([first, second], uris())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), end)
