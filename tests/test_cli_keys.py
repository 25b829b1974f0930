"""``odingw``: the command itself, and what needs no gateway."""

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import ClassVar

import click
from twisted.trial.unittest import SynchronousTestCase

from odingw import __version__
from odingw.cli import main
from odingw.tokens import AccessKey, Policy, parse, verify
from tests.process import ACCESS_KEY
from tests.sim_stub import temporary_folder
from tests.terminal import ROOT, Ended, assert_one_line, command, environment, odingw

KEY = {"ODINGW_ACCESS_KEY": ACCESS_KEY.text}


def all_commands() -> dict[str, click.Command]:
    """Return every command with its full name."""
    found: dict[str, click.Command] = {}
    context = click.Context(main.odingw)
    for name in main.odingw.list_commands(context):
        one = main.odingw.get_command(context, name)
        assert one is not None
        if isinstance(one, click.Group):
            found |= {f"{name} {sub}": one.commands[sub] for sub in one.commands}
        else:
            found[name] = one
    return found


class HelpTests(SynchronousTestCase):
    def test_every_command_explains_itself(self) -> None:
        for name, one in all_commands().items():
            ended = odingw(*name.split(), "--help")
            self.assertEqual((0, ""), (ended.status, ended.err), name)
            self.assertIn("Examples:\n    odingw ", ended.out.replace('eval "$(', ""), name)
            self.assertIn("Exit status: 0 all is well; 1 refused", ended.out, name)
            for option in one.params:
                if isinstance(option, click.Option):
                    self.assertTrue(option.help, f"{name} {option.name}")
            if name not in ("completion", "run"):
                self.assertIn("--json", ended.out, name)

    def test_the_overview_says_what_the_commands_say(self) -> None:
        """The overview loads no command, so its lines stand in another place."""
        context = click.Context(main.odingw)
        for commands in main.SECTIONS.values():
            for name, (_, line) in commands.items():
                one = main.odingw.get_command(context, name)
                assert one is not None
                self.assertEqual(line, one.get_short_help_str(100), name)
        overview = odingw("--help").out
        for name in main.odingw.list_commands(context):
            self.assertIn(f"  {name} ", overview)

    def test_the_overview_loads_nothing_heavy(self) -> None:
        script = (
            "import sys; from odingw.cli.main import run; run(['--help']);"
            "print(sorted({'twisted', 'requests', 'rich', 'msgspec', 'nacl'} & sys.modules.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
        )
        self.assertEqual("[]", done.stdout.splitlines()[-1])

    def test_no_command_shows_all(self) -> None:
        ended = odingw()
        self.assertEqual((2, ""), (ended.status, ended.out))
        self.assertIn("Keys and tokens:", ended.err)

    def test_version(self) -> None:
        for option in ("-V", "--version"):
            self.assertEqual(odingw(option).out, f"odingw {__version__}\n")

    def test_wrong_usage(self) -> None:
        for arguments, said in (
            (["nonsense"], "No such command 'nonsense'"),
            (["tokn"], "Did you mean 'token'?"),
            (["token"], "Missing argument 'ROOM...'"),
            (["token", "lobby"], "an access key is needed: ODINGW_ACCESS_KEY"),
            (["turn-test"], "or a token: --token, ODINGW_TOKEN"),
            (["token", "lobby", "--lifetime", "soon"], "'soon' is no duration"),
            (["token", "lobby", "--lifetime", "0"], "must be 1 seconds at least"),
            (["token", "lobby", "--method", "Dance"], "'Dance' is not one of"),
            (["access-key", "lose"], "No such command 'lose'"),
            (["access-key", "show", "--access-key-file", "/no/such/file"], "No such file"),
            (["top", "--admin", "ftp://host"], "not a URL"),
            (["top", "--admin", "http://host:port"], "not a URL"),
            *(
                (["call", "Connect", "--room", "lobby", "--url", url], "not a URL")
                for url in ("htp:/bad", "http:/host", "htp:host", "host:port", "/path", "", ":7000")
            ),
            (["top", "--interval", "-1"], "is no duration"),
            (["call", "Connect", "--room", "lobby", "--timeout", "0"], "seconds at least"),
            (["simulate", "--servers", "0"], "--servers"),
            (["simulate", "--address-format", "sfu"], "needs one {} for the server's number"),
            (["simulate", "--address-format", "sfu-{name}"], "needs one {}"),
            (["demo", "--rate", "0"], "--rate"),
            (["completion", "tcsh"], "'tcsh' is not one of"),
        ):
            ended = odingw(*arguments)
            self.assertEqual((2, ""), (ended.status, ended.out), arguments)
            assert_one_line(ended)
            self.assertIn(said, ended.err)

    def test_a_reader_that_goes_away(self) -> None:
        """As ``odingw … | head -1`` does; nothing is said about it."""
        with subprocess.Popen(
            command("access-key", "new", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            self.assertEqual(b"", process.stderr.read())
            self.assertEqual(0, process.wait(60))

    def test_a_full_disk(self) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command("access-key", "new"),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
                cwd=ROOT,
                check=False,
            )
        self.assertEqual(1, done.returncode)
        assert_one_line(Ended(done.returncode, "", done.stderr))
        self.assertIn("No space left on device", done.stderr)

    def test_a_terminal_that_knows_ascii_alone(self) -> None:
        done = subprocess.run(
            command("decode"),
            input=odingw("token", "Größe", **KEY).out.encode(),
            capture_output=True,
            env=environment(PYTHONIOENCODING="ascii"),
            cwd=ROOT,
            check=True,
        )
        self.assertIn("Größe".encode(), done.stdout)


class CompletionTests(SynchronousTestCase):
    def complete(self, words: str) -> list[str]:
        """What bash is told when Tab is pressed behind the words."""
        done = subprocess.run(
            command(),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            env=environment(
                _ODINGW_COMPLETE="bash_complete",
                COMP_WORDS=words,
                COMP_CWORD=str(len(words.split()) - (not words.endswith(" "))),
                ODINGW_ADMIN="http://127.0.0.1:1",
            ),
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    def test_scripts(self) -> None:
        for shell, part in (
            ("bash", "complete -o nosort -F _odingw_completion odingw"),
            ("zsh", "#compdef odingw"),
            ("fish", "complete --no-files --command odingw"),
        ):
            ended = odingw("completion", shell)
            self.assertEqual((0, ""), (ended.status, ended.err))
            self.assertIn(part, ended.out)

    def test_names(self) -> None:
        self.assertEqual(["top", "token", "turn-test"], sorted(self.complete("odingw t"), key=len))
        self.assertEqual(["new", "show"], self.complete("odingw access-key "))
        self.assertEqual(["--json"], self.complete("odingw top --j"))
        # The admin endpoint is not there, which is no reason to say anything.
        self.assertEqual([], self.complete("odingw drain sfu"))


class AccessKeyTests(SynchronousTestCase):
    toml: ClassVar = (
        '[[gateway.customers]]\nid = "acme"\n\n[[gateway.customers.access_keys]]\n'
        'public_key = { kid = "AQ7aVmK+pI1l", kty = "OKP", crv = "Ed25519", '
        'x = "ZGYe_vBZVNkzQ6fD8BmkJUb6o0p8wfKt3PqFVx6-be4" }\n'
    )

    def test_show(self) -> None:
        for given in (
            odingw("access-key", "show", **KEY),
            odingw("access-key", "show", "--access-key", ACCESS_KEY.text),
            odingw("access-key", "show", "--access-key-file", "-", stdin=f"{ACCESS_KEY.text}\n"),
        ):
            self.assertEqual((0, ""), (given.status, given.err))
            self.assertEqual(
                f"# Key id AQ7aVmK+pI1l; for the gateway's odingw.toml:\n{self.toml}", given.out
            )

    def test_new(self) -> None:
        ended = odingw("access-key", "new", "--customer", 'a"b\x7f', "--namespace", "rooms")
        (secret,) = (
            line[2:]
            for line in ended.out.splitlines()
            if line.startswith("# A") and " " not in line[2:]
        )
        (customer,) = tomllib.loads(ended.out)["gateway"]["customers"]
        self.assertEqual('a"b\x7f', customer["id"])
        (key,) = customer["access_keys"]
        self.assertEqual("rooms", key["namespace"])
        self.assertEqual(AccessKey(secret).kid, key["public_key"]["kid"])
        self.assertNotEqual(secret, odingw("access-key", "new", "--json").document["access_key"])

    def test_new_as_json(self) -> None:
        document = odingw("access-key", "new", "--json").document
        jwk = AccessKey(document["access_key"]).public_jwk()
        self.assertEqual(jwk.kid, document["kid"])
        self.assertEqual(
            {"kid": jwk.kid, "kty": "OKP", "crv": "Ed25519", "x": jwk.x}, document["public_key"]
        )

    def test_file(self) -> None:
        """The key goes where its owner alone can read it, and never over another one."""
        path = temporary_folder(self) / "acme.key"
        ended = odingw("access-key", "new", "--out", str(path))
        text = path.read_text().strip()
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertNotIn(text, ended.out)
        self.assertIn(AccessKey(text).kid, ended.out)
        self.assertNotIn("access_key", odingw("access-key", "show", "--json", **KEY).document)
        shown = odingw("access-key", "show", ODINGW_ACCESS_KEY_FILE=str(path))
        self.assertEqual(ended.out, shown.out)
        again = odingw("access-key", "new", "--out", str(path))
        self.assertEqual((1, ""), (again.status, again.out))
        assert_one_line(again)
        self.assertEqual(text, path.read_text().strip())
        assert_one_line(odingw("access-key", "new", "--out", str(path / "deeper")))

    def test_wrong_keys_are_not_repeated(self) -> None:
        for wrong, said in (
            ("secret", "not base64"),
            ("AAAA", "33 bytes in base64 expected"),
            (ACCESS_KEY.text[:-4] + "AAAA", "wrong checksum"),
        ):
            ended = odingw("access-key", "show", ODINGW_ACCESS_KEY=wrong)
            self.assertEqual((2, ""), (ended.status, ended.out))
            assert_one_line(ended)
            self.assertIn("odingw: ODINGW_ACCESS_KEY: ", ended.err)
            self.assertIn(said, ended.err)
            self.assertNotIn(wrong, ended.err)
            path = temporary_folder(self) / "acme.key"
            path.write_text(wrong)
            ended = odingw("token", "lobby", "--access-key-file", str(path))
            self.assertEqual((2, ""), (ended.status, ended.out))
            self.assertIn(f"odingw: {path}: ", ended.err)
            ended = odingw("token", "lobby", "--access-key", wrong)
            self.assertIn("odingw: --access-key: ", ended.err)


class TokenTests(SynchronousTestCase):
    def test_token(self) -> None:
        ended = odingw("token", "lobby", "--user", "alice", **KEY)
        self.assertEqual((0, ""), (ended.status, ended.err))
        keys = {ACCESS_KEY.kid: ACCESS_KEY.public_jwk()}
        verified = verify(ended.out.strip(), keys.get, now=time.time(), policy=Policy())
        self.assertEqual(("lobby", "alice"), (verified.claims.rid, verified.claims.uid))
        self.assertEqual("Connect", json.loads(parse(ended.out.strip()).payload)["sub"])

    def test_claims(self) -> None:
        document = odingw(
            *("token", "{b}1", "{b}2", "--method", "roomclose", "--method", "turn"),
            *("--lifetime", "1.5h", "--server", "sfu:1", "--tag", "a", "--tag", "b"),
            *("--audience", "gateway", "--json"),
            **KEY,
        ).document
        claims = json.loads(parse(document["token"]).payload)
        self.assertEqual(claims, document["claims"])
        self.assertEqual(5400, claims.pop("exp") - claims.pop("nbf"))
        self.assertEqual(
            {
                "rid": ["{b}1", "{b}2"],
                "uid": "",
                "sub": ["RoomClose", "turn"],
                "tgs": ["a", "b"],
                "aud": "gateway",
                "internal": {"server": "sfu:1"},
            },
            claims,
        )

    def test_not_utf8(self) -> None:
        assert_one_line(odingw("token", os.fsdecode(b"\xff"), **KEY))

    def test_decode(self) -> None:
        token = odingw("token", "lobby", "--user", "alice\x1b[2J", **KEY).out
        for ended in (odingw("decode", stdin=token), odingw("decode", token.strip())):
            self.assertEqual(0, ended.status)
            self.assertRegex(ended.out, r"(?m)^rid +lobby$")
            self.assertRegex(ended.out, r"(?m)^exp +\d+  \d{4}-.* UTC, in \d+ s$")
            self.assertIn(r"alice\x1b[2J", ended.out, "no control characters")
            self.assertNotIn("signature", ended.out)
        document = odingw("decode", "--json", stdin=token, **KEY).document
        self.assertEqual({"alg": "EdDSA", "kid": ACCESS_KEY.kid}, document["header"])
        self.assertEqual("lobby", document["claims"]["rid"])
        self.assertIs(True, document["signature"])

    def test_signatures(self) -> None:
        token = odingw("token", "lobby", **KEY).out.strip()
        forged = token.rpartition(".")[0] + "." + odingw("token", "x", **KEY).out.rpartition(".")[2]
        ended = odingw("decode", forged.strip(), **KEY)
        self.assertEqual(1, ended.status)
        self.assertIn("WRONG", ended.out)
        self.assertIs(
            False, odingw("decode", "--json", forged.strip(), **KEY).document["signature"]
        )
        other = odingw("access-key", "new", "--json").document["access_key"]
        ended = odingw("decode", token, ODINGW_ACCESS_KEY=other)
        self.assertEqual(0, ended.status)
        self.assertIn("not checked: by another key", ended.out)

    def test_no_token(self) -> None:
        for text in ("", "a.b.c", "x", "é", "\x00", "e30.e30.", "x" * 100_000):
            ended = odingw("decode", stdin=text)
            self.assertEqual((1, ""), (ended.status, ended.out), text[:10])
            assert_one_line(ended)
            self.assertIn("odingw: this is no JWT: ", ended.err)


class ArrowTests(SynchronousTestCase):
    def test_the_server_does_not_know_the_command(self) -> None:
        package = Path(main.__file__).parent.parent
        for path in package.rglob("*.py"):
            if path.parent.name != "cli":
                self.assertNotRegex(path.read_text("utf-8"), r"odingw\.cli\b", str(path))
