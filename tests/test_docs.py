"""The documentation builds without a warning, and what it shows works."""

import atexit
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest import SkipTest

import tomlkit
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import load
from odingw.errors import HTTP_STATUS, Reason
from tests.doc_sessions import Block, Terminal, blocks, steps
from tests.process import BIN, free_port

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
SAMPLE: Final = ROOT / "etc" / "odingw.toml"
QUICK_START: Final = DOCS / "quickstart.rst"

KEY: Final = "bm90IGEgc2VjcmV0"
"""What stands in every file that an example names: a master key, and a TURN secret too."""


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page with its text."""
    for path in [ROOT / "README.rst", *sorted(DOCS.glob("*.rst"))]:
        yield path, path.read_text("utf-8")


def shown(language: str) -> Iterator[tuple[str, Block]]:
    """Yield all blocks of a language, each with its place for messages."""
    for path, text in pages():
        for block in blocks(text):
            if block.language == language:
                yield f"{path.name}:{block.line}", block


@cache
def build_folder() -> Path:
    """Return where pages are built to, until the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="odingw-docs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def build(kind: str) -> "subprocess.CompletedProcess[str]":
    """Let Sphinx build the pages, once for all tests, and return what it says."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"]
    where = ["-d", str(build_folder() / "trees"), str(DOCS), str(build_folder() / kind)]
    return subprocess.run(
        [*command, "-b", kind, *where], capture_output=True, text=True, check=False
    )


class BuildTests(SynchronousTestCase):
    """Sphinx, warnings being errors."""

    def built(self, kind: str) -> Path:
        """Return where the pages are, if there was nothing to complain of."""
        outcome = build(kind)
        self.assertEqual((0, ""), (outcome.returncode, outcome.stderr))
        return build_folder() / kind

    def test_no_warning(self) -> None:
        for kind in ("html", "man"):
            self.built(kind)

    def test_links_lead_to_pages(self) -> None:
        """Plain links between the sources have become links between pages."""
        for page in self.built("html").glob("*.html"):
            self.assertEqual([], re.findall(r'href="[^"]*\.rst["#]', page.read_text("utf-8")), page)

    def test_manual_page_has_every_command(self) -> None:
        """Sub-commands with their options: lazily loaded ones are easily left out."""
        text = (self.built("man") / "odingw.1").read_text("utf-8").replace("\\-", "-")
        for words in ("access-key new", "turn-test", "simulate", "--access-key-file", "--lifetime"):
            self.assertIn(words, text)

    def test_every_key_of_the_sample_file_is_documented(self) -> None:
        """And no other key but those of inline tables."""
        documented = set(inventory(self.built("html") / "objects.inv", "std:confval"))
        keys = {path for path, _ in sample_keys()}
        inline = {
            path
            for path in documented
            if path.startswith(("gateway.unknown_customers.", "gateway.internal.users.NAME."))
        }
        self.assertEqual(keys, documented - inline)
        self.assertEqual(5, len(inline))

    def test_defaults_are_those_of_the_sample_file(self) -> None:
        page = (self.built("html") / "configuration.html").read_text("utf-8")
        entries = dict(re.findall(r'id="confval-([^"]+)">(.*?)</dd></dl>', page, re.DOTALL))
        for path, value in sample_keys():
            default = re.search(r"Default.*?<code[^>]*>(.*?)</code>", entries[path], re.DOTALL)
            if value is not None:
                self.assertIsNotNone(default, path)
                text = html.unescape(re.sub(r"<[^>]+>", "", default[1] if default else ""))
                self.assertEqual(value, tomllib.loads(f"value = {text}")["value"], path)

    def test_every_reason_is_in_the_wire_reference(self) -> None:
        page = (self.built("html") / "wire.html").read_text("utf-8")
        for word in (*map(str, Reason), *map(str, HTTP_STATUS)):
            self.assertIn(word, page)


def inventory(path: Path, role: str) -> Iterator[str]:
    """Yield the names of one kind in a Sphinx inventory, version 2."""
    packed = path.read_bytes().split(b"\n", 4)[4]
    for line in zlib.decompress(packed).decode().splitlines():
        name, kind, *_ = line.split(" ")
        if kind == role:
            yield name


def sample_keys() -> Iterator[tuple[str, Any]]:
    """Yield each key of the sample file, with its value; None: it is commented out."""
    text = SAMPLE.read_text("utf-8")
    tables = {"gateway.internal.users", "admin.users", "gateway.grid_config"}
    values = dict(leaves(tomllib.loads(text), tables))
    yield from values.items()
    table = ""
    for line in text.splitlines():
        header = re.fullmatch(r"(?:# )?\[+([a-z_.]+)\]+", line)
        key = re.match(r"# ([a-z_]+) = ", line)
        if header:
            table = header[1]
        elif key and table not in tables and f"{table}.{key[1]}" not in values:
            try:
                tomllib.loads(line.removeprefix("# "))
            except tomllib.TOMLDecodeError:
                continue
            values[f"{table}.{key[1]}"] = None
            yield f"{table}.{key[1]}", None


def leaves(table: dict[str, Any], whole: set[str], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield paths and values of a document; the tables of ``whole`` are values themselves."""
    for name, value in table.items():
        path = f"{at}{name}"
        if isinstance(value, dict) and path not in whole:
            yield from leaves(value, whole, f"{path}.")
        else:
            yield path, value


class ExampleTests(SynchronousTestCase):
    """Blocks that can be run or read are."""

    def test_toml(self) -> None:
        """Every piece of configuration loads, with what it leaves out at its default."""
        count = 0
        for place, block in shown("toml"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                text = with_files(block.text, folder)
                document = tomlkit.parse(text)
                state: Any = document.get("state", {})
                gateway: Any = document.setdefault("gateway", {})
                if str(state.get("url", "")).startswith("redis") and not any(
                    key.startswith("master_key") for key in gateway
                ):
                    gateway["master_key"] = KEY
                (folder / "odingw.toml").write_text(tomlkit.dumps(document), "utf-8")
                try:
                    load(folder / "odingw.toml")
                except Exception as error:
                    raise AssertionError(f"{place}: {error}") from error
                count += 1
        self.assertGreater(count, 10)

    def test_local_links(self) -> None:
        """What pages link to in the repository is there."""
        for path, text in pages():
            for target in re.findall(r"^\.\. _[^:]+: ([^:\s]+)$", text, re.MULTILINE):
                self.assertTrue((path.parent / target).exists(), f"{path.name}: {target}")

    def test_check_beside_a_running_gateway(self) -> None:
        """In the folder of a running one, twistd checks nothing unless it is told otherwise."""
        found = 0
        for path, text in [*pages(), (SAMPLE, SAMPLE.read_text("utf-8"))]:
            words = " ".join(text.replace("\n#", "\n").split())
            for call in re.findall(r"twistd\b[^`]*? --check\b", words):
                self.assertIn("--pidfile=", call, path.name)
                found += 1
        self.assertEqual(1, found)

    def test_json(self) -> None:
        for place, block in shown("json"):
            try:
                json.loads(block.text)
            except ValueError as error:
                raise AssertionError(f"{place}: {error}") from error

    def test_python(self) -> None:
        for place, block in shown("python"):
            compile(block.text, place, "exec")

    def test_shell(self) -> None:
        """Every command can be parsed, and what is ours in it exists."""
        for place, block in shown("console"):
            for step in steps(block.text):
                checked = subprocess.run(
                    ["bash", "-n"], input=step.command, capture_output=True, text=True, check=False
                )
                self.assertEqual((0, ""), (checked.returncode, checked.stderr), place)
                self.check_command(step.command, place)

    def check_command(self, command: str, place: str) -> None:
        """Look whether a command of ours knows the options that it is given."""
        found = re.search(r"(?:^|\s|\()odingw ([a-z-]+)((?: [a-z]+)?)", command)
        if found is None or "twistd" in command:
            return
        from odingw.cli.main import odingw as group

        with group.make_context("odingw", [], resilient_parsing=True) as context:
            known: Any = group.get_command(context, found[1])
            self.assertIsNotNone(known, f"{place}: odingw {found[1]}")
            known = getattr(known, "commands", {}).get(found[2].strip(), known)
            options = {name for param in known.params for name in param.opts}
        given = re.findall(r"(--[a-z-]+)", command[found.start() :].partition(")")[0])
        self.assertLessEqual(set(given), options, place)


def with_files(text: str, folder: Path) -> str:
    """Move the absolute paths of an example into a folder, and make the files."""

    def moved(found: "re.Match[str]") -> str:
        path = folder / found[1].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{KEY}\n", "utf-8")
        return f'"{path}"'

    return re.sub(r'"(/[^"]+)"', moved, text)


class QuickStartTests(SynchronousTestCase):
    """The quick start, word for word; with other ports, and in the environment that is there."""

    LASTING = ("odingw run ", "twistd ", "odingw simulate ", "turnserver ")

    def test_carried_out(self) -> None:
        if shutil.which("turnserver") is None:
            raise SkipTest("turnserver is not installed (package coturn)")
        page = QUICK_START.read_text("utf-8")
        sessions = [block for block in blocks(page) if block.language == "console"]
        install, *rest = sessions
        self.assertEqual("Install", install.caption)
        for lock in ("build", "run"):
            self.assertIn(f"pip install --require-hashes -r locks/{lock}.txt", install.text)
        self.assertIn("pip install --no-deps --no-build-isolation .", install.text)
        folder = Path(tempfile.mkdtemp(prefix="odingw-quickstart-"))
        self.addCleanup(shutil.rmtree, folder)
        self.make_environment(folder)
        ports = {name: free_port() for name in ("7000", "7001", "7002", "13478")}
        environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "ODINGW_URL": f"http://127.0.0.1:{ports['7000']}/",
            "ODINGW_INTERNAL": f"http://127.0.0.1:{ports['7002']}/internal",
        }
        terminals: dict[str, Terminal] = {}
        for block in rest:
            if block.caption not in terminals:
                terminals[block.caption] = Terminal(folder, environment)
                self.addCleanup(terminals[block.caption].close)
            text = re.sub(rf"\b({'|'.join(ports)})\b", lambda port: str(ports[port[1]]), block.text)
            for step in steps(text):
                lasting = step.command.startswith(self.LASTING)
                terminals[block.caption].carry_out(step, lasting=lasting)
        self.assertEqual(4, len(terminals))

    def make_environment(self, folder: Path) -> None:
        """Put the environment that runs the tests where the quick start made a new one."""
        scripts = folder / "voice" / "venv" / "bin"
        scripts.mkdir(parents=True)
        (scripts / "activate").write_text(f'PATH="{BIN}:$PATH"\n', "utf-8")
