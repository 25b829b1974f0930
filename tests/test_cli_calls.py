"""``odingw call``, ``drain``, ``unban``, ``top --once`` and ``where``, with a real gateway."""

import json
import os
import re
import subprocess
import time
from typing import Any, ClassVar
from unittest import mock

from click.shell_completion import BashComplete
from twisted.trial.unittest import SynchronousTestCase

from odingw.cli import calls, main
from odingw.cli.options import Address
from odingw.cli.output import UNREACHABLE, Failed
from odingw.tokens import AccessKey
from tests.process import ACCESS_KEY, customer, free_port, token
from tests.terminal import (
    PATIENCE,
    ROOT,
    Ended,
    assert_one_line,
    command,
    environment,
    odingw,
    shared_gateway,
)

SERVERS = ("sfu1.test:4433", "sfu2.test:4433")


class GatewayCase(SynchronousTestCase):
    """One gateway for all tests of a class, which leave nothing behind that others mind."""

    config: ClassVar = customer(max_peers=50)

    def setUp(self) -> None:
        self.gateway = shared_gateway(self.config)

    def odingw(self, *arguments: str, **options: Any) -> Ended:
        """Call a command that knows from its environment where the gateway is."""
        variables = {
            "ODINGW_URL": f"http://127.0.0.1:{self.gateway.port}/",
            "ODINGW_ADMIN": f"http://127.0.0.1:{self.gateway.admin}",
            "ODINGW_INTERNAL": f"http://127.0.0.1:{self.gateway.port}/internal",
            "ODINGW_ACCESS_KEY": ACCESS_KEY.text,
        }
        return odingw(*arguments, **{**variables, **options})

    def good(self, *arguments: str, **options: Any) -> Ended:
        """Call a command that succeeds."""
        ended = self.odingw(*arguments, **options)
        self.assertEqual((0, ""), (ended.status, ended.err), arguments)
        return ended

    def bad(self, status: int, said: str, *arguments: str, **options: Any) -> Ended:
        """Call a command that fails with one line."""
        ended = self.odingw(*arguments, **options)
        self.assertEqual(status, ended.status, (arguments, ended))
        assert_one_line(ended)
        self.assertIn(said, ended.err)
        return ended


class CallTests(GatewayCase):
    def report(self, peers: int = 1) -> None:
        """Let both servers report, the first one with a room."""
        self.gateway.report(SERVERS[0], ("lobby", peers), ("{b}1", 1))
        self.gateway.report(SERVERS[1])

    def tasks(self) -> list[Any]:
        """Return the tasks that wait for the first server."""
        answer = self.gateway.report(SERVERS[0], ("lobby", 1), ("{b}1", 1))
        found: list[Any] = answer["result"]["tasks"]
        return found

    def test_connect(self) -> None:
        self.report()
        for arguments in (("Connect",), ("connect", "--json")):
            result = self.good("call", *arguments, "--room", "lobby", "--user", "alice").document
            self.assertEqual(SERVERS[0], result["address"])
            self.assertIn('"rid": "lobby"', self.good("decode", result["token"], "--json").out)
        given = token("lobby", "bob")
        result = self.good("call", "Connect", ODINGW_TOKEN=given, ODINGW_ACCESS_KEY="").document
        self.assertEqual(SERVERS[0], result["address"])
        server = {"server": SERVERS[1]}
        given = token("elsewhere", internal=server)
        result = self.good("call", "Connect", "--token", given, ODINGW_ACCESS_KEY="").document
        self.assertEqual(SERVERS[1], result["address"])

    def test_management(self) -> None:
        self.report()
        self.tasks()
        call = ("call", "RoomSendMessage", "--room", "lobby", "-p", "user_id=7")
        self.assertEqual({}, self.good(*call, "-p", "message=hé").document)
        self.good(*call, "-p", "message=[1, 2]")
        params = '{"room_id": "lobby", "ban_time": 1.5}'
        self.good("call", "RoomClose", "--params", params)
        self.good("call", "RoomUpdate", "--params", "@-", "-p", "user_data=7", stdin=params)
        self.assertEqual(
            [
                ("RoomSendMessage", "7", [0x68, 0xC3, 0xA9]),
                ("RoomSendMessage", "7", [1, 2]),
                ("RoomClose", None, None),
                ("RoomUpdate", None, [0x37]),
            ],
            [
                (task["task"], task.get("user_id"), task.get("message", task.get("user_data")))
                for task in self.tasks()
            ],
        )
        self.good("unban", "lobby")

    def test_server_api(self) -> None:
        self.report()
        result = self.good("call", "Info", "--server-api").document
        self.assertEqual(set(SERVERS), {one["address"] for one in result["servers"]})
        self.bad(1, "Method not found", "call", "Inform", "--server-api")

    def test_refusals(self) -> None:
        self.report()
        for status, said, arguments in (
            (1, "room_not_found", ["RoomClose", "--room", "nowhere"]),
            (2, "Dance is no method; one of Connect, ", ["Dance", "--room", "lobby"]),
            (1, "user_id", ["RoomBanClient", "--room", "lobby"]),
            (1, "token", ["Connect", "--token", "a.b.c"]),
            (2, "--room is needed", ["Connect"]),
            (2, "write NAME=VALUE", ["Connect", "--room", "lobby", "-p", "x"]),
            (2, "--params: not JSON: it ends too early", ["Connect", "--params", "{"]),
            (2, "--params: message: half of a surr", ["x", "--params", '{"message":"\\ud83d"}']),
            (2, "--params: not a JSON object", ["Connect", "--room", "lobby", "--params", "[]"]),
            (2, "No such file", ["Connect", "--room", "lobby", "--params", "@/no/such"]),
            (2, "expected a JWT", ["Connect", "--token", "two words"]),
        ):
            self.assertEqual("", self.bad(status, said, "call", *arguments).out, arguments)
        other = odingw("access-key", "new", "--json").document["access_key"]
        kid = AccessKey(other).kid
        self.bad(
            1,
            f"not authorized; the gateway does not know this access key (kid {kid})",
            *("call", "Connect", "--room", "lobby"),
            ODINGW_ACCESS_KEY=other,
        )

    def test_where_the_url_is_wrong(self) -> None:
        said = "is no client API; --url must name the public endpoint"
        for port, path in (
            (self.gateway.port, "/nosuch/"),
            (self.gateway.port, "/internal"),
            (self.gateway.admin, "/"),
        ):
            url = f"http://127.0.0.1:{port}{path}"
            self.bad(1, f"{url} {said}", "call", "Connect", "--room", "lobby", "--url", url)
        url = f"http://127.0.0.1:{self.gateway.admin}/"
        self.bad(1, "is no server API", "drain", "x", "--internal", url)

    def test_token_for_another_method(self) -> None:
        given = ("--token", token("lobby"), "--room", "lobby")
        self.bad(1, "sub does not name RoomClose", "call", "RoomClose", *given)

    def test_discover(self) -> None:
        """A method that answers whoever has a token."""
        document = self.good("call", "rpc.discover", "--room", "lobby", "--json").document
        self.assertIn("openrpc", document)

    def test_nobody_there(self) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        for arguments in (
            ("call", "Connect", "--room", "lobby", "--url", nowhere),
            ("call", "Info", "--server-api", "--internal", nowhere),
            ("drain", "sfu", "--internal", nowhere),
            ("unban", "lobby", "--url", nowhere),
            ("where", "lobby", "--admin", nowhere),
            ("top", "--once", "--admin", nowhere),
            ("turn-test", "--url", nowhere),
            ("simulate", "--url", nowhere),
            ("customers", f"{nowhere}/customers?key=secret"),
        ):
            ended = self.bad(3, "cannot reach http://127.0.0.1", *arguments)
            self.assertIn(": connection refused", ended.err)
            self.assertEqual("", ended.out, arguments)
            self.assertNotIn("secret", ended.err)

    def test_where_nobody_reports_by_default_any_more(self) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}/internal"
        place = Address(nowhere, None, 10.0, verify=True)
        for default, hinted in ((nowhere, True), ("http://127.0.0.1:1/internal", False)):
            self.patch(calls, "DEFAULT_INTERNAL", default)
            error = self.assertRaises(Failed, calls.call_internal, place, "Info", {})
            self.assertEqual(UNREACHABLE, error.status)
            self.assertEqual(hinted, "on the public endpoint; see --internal" in str(error))

    def test_passwords_are_not_shown(self) -> None:
        nowhere = f"http://ops:hunter2@127.0.0.1:{free_port()}/"
        for arguments in (
            ("top", "--once", "--admin", nowhere),
            ("drain", "sfu", "--internal", nowhere),
            ("call", "Connect", "--room", "lobby", "--url", nowhere),
        ):
            self.assertNotIn("hunter2", self.bad(3, "127.0.0.1", *arguments).err)

    def test_drain(self) -> None:
        self.report()
        self.assertEqual(
            {"server": SERVERS[1], "drained": True},
            self.good("drain", SERVERS[1], "--json").document,
        )
        self.assertRegex(self.good("top", "--once").out, r"sfu2\.test:4433 +drained ")
        self.assertIn("drained", self.good("drain", SERVERS[1], "--wait").out)
        ended = self.bad(1, "has 2 rooms", "drain", SERVERS[0], "--wait-timeout", "0")
        self.assertIn("is drained", ended.out)
        for server in SERVERS:
            self.good("undrain", server)
        self.assertNotIn("drained", self.good("top", "--once").out)
        self.bad(1, "server_not_found", "drain", "nosuch:1")
        self.bad(1, "server_not_found", "undrain", "nosuch:1", "--json")

    def test_unban(self) -> None:
        self.report()
        call = ("call", "RoomBanClient", "--room", "lobby", "-p", "user_id=eve")
        self.good(*call, "-p", "ban_time=1000")
        connect = ("call", "Connect", "--room", "lobby", "--user", "eve")
        self.bad(1, "user_banned", *connect)
        self.assertIn("eve may enter lobby", self.good("unban", "lobby", "eve").out)
        self.good(*connect)
        self.good("call", "RoomClose", "--room", "{b}1", "-p", "ban_time=1000")
        self.bad(1, "room_banned", "call", "Connect", "--room", "{b}1")
        document = self.good("unban", "{b}1", "--json").document
        self.assertEqual({"room": "{b}1", "user": None, "banned": False}, document)
        self.bad(1, "room_not_found", "unban", "nowhere")

    def test_where(self) -> None:
        self.report(peers=7)
        self.assertRegex(self.good("where", "lobby").out, r"lobby +acme +- +sfu1\.test:4433 +live")
        (room,) = self.good("where", "{b}2", "--json").document["rooms"]
        self.assertEqual(
            ("{b}1", "acme", SERVERS[0], "ready"),
            tuple(room[key] for key in ("name", "namespace", "server", "server_state")),
        )
        self.good("where", "lobby", "--namespace", "acme", "--pool", "")
        for arguments in (["nowhere"], ["lobby", "--namespace", "x"], ["lobby", "--pool", "eu"]):
            self.assertEqual("", self.bad(1, "is on no server", "where", *arguments).out)
        ended = self.bad(1, "is on no server", "where", "nowhere", "--json")
        self.assertEqual({"room": "nowhere", "rooms": []}, ended.document)

    def test_completion(self) -> None:
        """Servers and rooms are completed with what the gateway knows."""
        self.report()
        completion = BashComplete(main.odingw, {}, "odingw", "_ODINGW_COMPLETE")
        admin = f"http://127.0.0.1:{self.gateway.admin}"
        for variables, arguments, incomplete, found in (
            ({"ODINGW_ADMIN": admin}, ["drain"], "sfu", [*SERVERS]),
            ({"ODINGW_ADMIN": admin}, ["undrain"], "sfu2", [SERVERS[1]]),
            ({}, ["where", "--admin", admin], "lo", ["lobby"]),
            ({"ODINGW_ADMIN": admin}, ["call", "Connect", "--room"], "", ["lobby", "{b}1"]),
            ({"ODINGW_ADMIN": "nonsense:x"}, ["drain"], "", []),
        ):
            with mock.patch.dict(os.environ, environment(**variables), clear=True):
                items = completion.get_completions(arguments, incomplete)
            self.assertEqual(found, [item.value for item in items], arguments)

    def test_top(self) -> None:
        self.report(peers=7)
        for arguments in (["--once"], ["--once", "--sort", "peers"], []):
            # Without a terminal one picture is enough.
            shown = self.good("top", *arguments).out
            self.assertRegex(shown, r"(?m)^sfu1\.test:4433 +live .* 0% ")
            self.assertRegex(shown, r"(?m)^acme +\d+(/50)? ")
            self.assertRegex(shown, r"(?m)^lobby +acme +sfu1\.test:4433 +7 ")
            self.assertNotIn("\x1b", shown)
        ordered = re.findall(r"(?m)^sfu\d", self.good("top", "--sort", "address").out)
        self.assertEqual(["sfu1", "sfu2"], ordered)
        document = self.good("top", "--json").document
        self.assertEqual(
            set(SERVERS),
            {one["address"] for pool in document["pools"].values() for one in pool["servers"]},
        )
        public = f"http://127.0.0.1:{self.gateway.port}"
        self.bad(1, "must name the admin endpoint", "top", "--once", "--admin", public)


class WaitTests(GatewayCase):
    config: ClassVar = customer(max_peers=52)

    def test_drain_waits(self) -> None:
        """Until the last room is gone."""
        address = "sfu3.test:4433"
        self.gateway.report(address, ("waits", 1))
        admin, port = self.gateway.admin, self.gateway.port
        process = subprocess.Popen(
            command("drain", address, "--wait", "--json"),
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(
                ODINGW_ADMIN=f"http://127.0.0.1:{admin}",
                ODINGW_INTERNAL=f"http://127.0.0.1:{port}/internal",
            ),
        )
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        end = time.monotonic() + PATIENCE
        drained = False
        while not drained and time.monotonic() < end:
            drained = "drained" in self.good("where", "waits").out
        self.assertTrue(drained)
        self.assertIsNone(process.poll())
        self.gateway.report(address)
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(0, process.returncode)
        self.assertEqual({"server": address, "drained": True, "rooms": 0}, json.loads(out))


class UserTests(GatewayCase):
    """Endpoints that want a user and a password."""

    config: ClassVar = (
        '[gateway.internal]\nusers = { odin = "p:w" }\n[admin]\nusers = { ops = "hunter2" }\n'
    )

    def test_admin(self) -> None:
        self.bad(1, "wants a user and password", "top", "--once")
        self.bad(1, "wants a user and password", "top", "--once", "--user", "ops:wrong")
        self.good("top", "--once", "--user", "ops:hunter2")
        self.good("top", "--once", ODINGW_ADMIN_USER="ops:hunter2")
        shown = self.good("top", "--admin", f"http://ops:hunter2@127.0.0.1:{self.gateway.admin}")
        self.assertNotIn("hunter2", shown.out)

    def test_internal(self) -> None:
        url = f"http://127.0.0.1:{self.gateway.port}/internal"
        said = f"{url} wants a user and password, or others: see "
        self.bad(1, f"{said}--internal-user", "call", "Info", "--server-api")
        self.bad(1, f"{said}--user", "drain", "x", "--user", "odin:wrong")
        self.good("call", "Info", "--server-api", ODINGW_INTERNAL_USER="odin:p:w")
        self.bad(1, "server_not_found", "drain", "x", "--user", "odin:p:w")
        url = f"http://odin:p%3Aw@127.0.0.1:{self.gateway.port}/internal"
        self.good("call", "Info", "--server-api", "--internal", url)
