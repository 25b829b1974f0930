"""``Containerfile``, as far as it goes without an engine: its steps are carried out in a folder."""

import http.client
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Final

import pathspec
import pytest
from dockerfile_parse import DockerfileParser
from twisted.trial.unittest import SynchronousTestCase

import twisted
from tests.process import free_port

ROOT: Final = Path(__file__).parent.parent
USER: Final = "10001"
INSIDE: Final = ("/opt/odingw", "/var/lib/odingw", "/source")
"""The folders of the image that its steps name; none of them may be touched on this machine."""

WAIT: Final = 60.0


def parser() -> DockerfileParser:
    """Return a parser of the file."""
    return DockerfileParser(fileobj=StringIO((ROOT / "Containerfile").read_text("utf-8")))


def steps() -> list[tuple[str, str]]:
    """Return instructions and their values, in their order."""
    found = parser().structure
    return [(s["instruction"], s["value"]) for s in found if s["instruction"] != "COMMENT"]


def values(name: str) -> list[str]:
    """Return the values of all instructions of a kind."""
    return [value for instruction, value in steps() if instruction == name]


def words(name: str) -> list[str]:
    """Return the words of the one instruction of a kind that is written as a list."""
    (value,) = values(name)
    found: list[str] = json.loads(value)
    return found


def health_command() -> list[str]:
    """Return the words of the health check."""
    (value,) = values("HEALTHCHECK")
    options, _, command = value.partition(" CMD ")
    assert all(option.startswith("--") for option in options.split())
    found: list[str] = json.loads(command)
    return found


def environment() -> dict[str, str]:
    """Return the variables of the image."""
    return dict(parser().envs)


class FileTests(SynchronousTestCase):
    def test_it_builds_in_one_image_and_runs_in_another(self) -> None:
        first, last = values("FROM")
        self.assertEqual(f"{last} AS build", first)
        default, base = values("ARG")
        self.assertEqual("${BASE}", last)
        # Whoever wants to fix the image by its digest gives another name.
        self.assertTrue(base.startswith("BASE=") and base.endswith("/python:${PYTHON}-slim"), base)
        minimum = re.search(r"python_requires = >=3\.(\d+)", (ROOT / "setup.cfg").read_text())
        assert minimum is not None
        self.assertGreaterEqual(int(default.removeprefix("PYTHON=3.")), int(minimum[1]))

    def test_it_runs_as_nobody_in_particular_and_ends_in_order(self) -> None:
        self.assertEqual([f"{USER}:{USER}"], values("USER"))
        self.assertEqual(["SIGTERM"], values("STOPSIGNAL"))
        self.assertEqual(["7000 7001 7002"], values("EXPOSE"))
        self.assertEqual(["/var/lib/odingw"], values("VOLUME"))
        self.assertEqual("/var/lib/odingw", environment()["STATE_DIRECTORY"])

    def test_what_it_copies_is_in_the_context_and_little_else(self) -> None:
        lines = (ROOT / ".containerignore").read_text().splitlines()
        self.assertEqual(".containerignore", str((ROOT / ".dockerignore").readlink()))
        ignored = pathspec.PathSpec.from_lines("gitignore", lines)
        copied = [source for value in values("COPY") for source in sources(value)]
        for source in copied:
            self.assertTrue((ROOT / source).exists(), source)
            self.assertFalse(ignored.match_file(source), source)
        self.assertFalse(ignored.match_file("odingw/web/api.py"))
        for other in (
            ".git/config",
            ".venv/bin/python",
            "dist/odingw",
            "odingw/__pycache__/a.pyc",
            "odingw/web/__pycache__/a.pyc",
            "etc/odingw.toml",
            "twisted/plugins/dropin.cache",
            "var/demo/odingw.toml",
        ):
            self.assertTrue(ignored.match_file(other), other)


def sources(value: str) -> list[str]:
    """Return what a COPY takes from the context."""
    if value.startswith("--from="):
        return []
    *found, _ = value.split()
    return found


def use_installed(folder: Path) -> None:
    """Put the versions that are installed here into locks: the tests run with others, too."""
    for path in folder.iterdir():

        def installed(found: "re.Match[str]") -> str:
            try:
                return f"{found[1]}=={importlib.metadata.version(found[1])}"
            except importlib.metadata.PackageNotFoundError:
                return found[0]

        path.write_text(
            re.sub(r"^([\w.-]+)==[\w.+!-]+", installed, path.read_text(), flags=re.MULTILINE)
        )


class StepTests(SynchronousTestCase):
    """The steps, with the image's folders in a folder of this machine."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        tools = self.root / "usr" / "local" / "bin"
        tools.mkdir(parents=True)
        # The image's Python, which is that of the virtual environment of the tests.
        (tools / "python").symlink_to(Path(sys.executable).resolve())
        self.path = f"{tools}:/usr/bin:/bin"
        self.directory = self.root

    def inside(self, text: str) -> str:
        """Return a text with the image's folders, and its user, replaced by those here."""
        for folder in INSIDE:
            text = re.sub(rf"(?<![\w.-]){folder}\b", f"{self.root}{folder}", text)
        text = text.replace("/usr/local/bin:", f"{self.root}/usr/local/bin:")
        for option, number in (("-o", os.getuid()), ("-g", os.getgid())):
            text = text.replace(f"{option} {USER}", f"{option} {number}")
        return text

    def provide_libraries(self) -> None:
        """Let pip find all that the lock names installed, as it is in the tests' environment."""
        place = self.root / "opt" / "odingw"
        there = Path(twisted.__file__).parent.parent
        here = place / there.relative_to(sys.prefix)
        here.mkdir(parents=True)
        for path in there.iterdir():
            if path.name.startswith(("twisted", "Twisted", "pip", "setuptools")):
                # Plugins are added to the first, and their list is made; the others install.
                shutil.copytree(path, here / path.name)
            elif not path.name.startswith(("odingw", "__")):
                (here / path.name).symlink_to(path)
        script = place / "bin" / "twistd"
        script.parent.mkdir()
        _, _, rest = (Path(sys.executable).parent / "twistd").read_text().partition("\n")
        script.write_text(f"#!{script.parent}/python\n{rest}")
        script.chmod(0o755)

    def build(self) -> None:
        """Carry out the steps up to the image."""
        self.provide_libraries()
        for name, value in steps():
            match name:
                case "FROM":
                    self.directory = self.root
                case "WORKDIR":
                    self.directory = Path(self.inside(value))
                    self.directory.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self.copy(value)
                case "RUN":
                    self.run_step(self.inside(value))

    def copy(self, value: str) -> None:
        if value.startswith("--from="):
            # A virtual environment works in its place only, where it already is.
            _, source, target = value.split()
            self.assertEqual(source, target)
            self.assertTrue(Path(self.inside(source)).is_dir())
            return
        *found, target = value.split()
        place = self.directory / self.inside(target)
        for source in found:
            if source == "locks":
                shutil.copytree(ROOT / source, place)
                use_installed(place)
            elif (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / source, place, ignore=ignored)
            else:
                path = place / source if target.endswith("/") else place
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, path)

    def run_step(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.directory,
            env={**os.environ, "PATH": self.path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.assertEqual(0, done.returncode, f"{command}\n{done.stdout}")

    def files(self) -> set[str]:
        """Return the files that belong to the image, not to the volume."""
        state = self.root / "var"
        return {
            f"{path.relative_to(self.root)} {path.lstat().st_mtime_ns}"
            for path in self.root.rglob("*")
            if not path.is_relative_to(state) and not path.is_dir()
        }

    @pytest.mark.long
    def test_what_they_build_starts_is_healthy_and_ends(self) -> None:
        self.build()
        public, admin = free_port(), free_port()
        variables = {name: self.inside(value) for name, value in environment().items()}
        variables["ODINGW_HEALTH"] = variables["ODINGW_HEALTH"].replace("7001", str(admin))
        # That its proxy does not answer must not matter.
        variables["http_proxy"] = f"http://127.0.0.1:{free_port()}"
        health = [self.inside(word) for word in health_command()]
        before = self.files()
        self.assertNotEqual(0, self.check_health(health, variables))
        command = [self.inside(word) for word in words("ENTRYPOINT")]
        # Two images of this machine may run at once: other ports than in the container.
        command += ["--listen", f"tcp:{public}:interface=127.0.0.1"]
        command += ["--admin", f"tcp:{admin}:interface=127.0.0.1"]
        command += ["--internal", f"tcp:{free_port()}:interface=127.0.0.1"]
        self.assertEqual([], values("CMD"))
        with (self.root / "var" / "log").open("w") as log:
            process = subprocess.Popen(
                ["/usr/bin/env", *command],
                cwd=self.directory,
                env=variables,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait, WAIT)
        self.addCleanup(process.kill)
        text = (self.root / "var" / "log").read_text
        end = time.monotonic() + WAIT
        while self.ask(admin, "/readyz") != 200:
            self.assertLess(time.monotonic(), end, text())
            self.assertIsNone(process.poll(), text())
            time.sleep(0.05)
        self.assertEqual(0, self.check_health(health, variables))
        (number,) = values("STOPSIGNAL")
        process.send_signal(signal.Signals[number])
        self.assertEqual(0, process.wait(WAIT), text())
        self.assertNotEqual(0, self.check_health(health, variables))
        self.assertEqual(before, self.files())
        state = {path.name for path in (self.root / "var" / "lib" / "odingw").iterdir()}
        self.assertLessEqual({"odingw.masterkey", "odingw.sqlite"}, state)

    def ask(self, port: int, path: str) -> int:
        """Return the status of an answer, or 0 where there is none yet."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionError:
            return 0
        finally:
            connection.close()

    def check_health(self, command: list[str], variables: dict[str, str]) -> int:
        done = subprocess.run(
            ["/usr/bin/env", *command], env=variables, capture_output=True, check=False
        )
        return done.returncode
