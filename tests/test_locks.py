"""``locks/`` is what ``setup.cfg`` asks for, and all that is installed comes from there."""

import configparser
import itertools
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from attrs import frozen
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from twisted.trial.unittest import SynchronousTestCase

ROOT: Final = Path(__file__).parent.parent
LOCKS: Final = ROOT / "locks"

EXTRAS: Final = {"run": "", "docs": "docs", "executable": "executable", "test": "test"}
"""Lock files, and which extra of ``setup.cfg`` each is for."""

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")


@frozen
class Pin:
    """What a lock says about one distribution, on the machines that its marker names."""

    requirement: Requirement
    version: Version
    hashes: tuple[str, ...]


@cache
def setup() -> configparser.ConfigParser:
    """Return what stands in ``setup.cfg``."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@cache
def groups() -> dict[str, list[str]]:
    """Return what installs, what renews the locks and what audits them."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return dict(document["dependency-groups"])


def wishes(extra: str) -> Iterator[Requirement]:
    """Return what odingw needs with an extra."""
    lines = setup()["options"]["install_requires"]
    if extra:
        lines += setup()["options.extras_require"][extra]
    for line in lines.strip().splitlines():
        wish = Requirement(line)
        if wish.name == "odingw":
            for inner in wish.extras:
                yield from wishes(inner)
        else:
            yield wish


@cache
def pins(name: str) -> tuple[Pin, ...]:
    """Read a lock."""
    text = (LOCKS / f"{name}.txt").read_text("utf-8").replace("\\\n", " ")
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    return tuple(map(pin, lines))


def pin(line: str) -> Pin:
    """Read an entry of a lock."""
    before, *options = line.split(" --")
    requirement = Requirement(before)
    (only,) = requirement.specifier
    assert only.operator == "==", line
    assert all(option.startswith("hash=") for option in options), line
    hashes = tuple(option.removeprefix("hash=").strip() for option in options)
    return Pin(requirement, Version(only.version), hashes)


def environments() -> Iterator[dict[str, str]]:
    """Return the markers of every Python, its first release and a late one, and every machine."""
    for python, patch, machine in itertools.product(PYTHONS, (0, 30), MACHINES):
        yield {
            "extra": "",
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{python}.{patch}",
            "python_version": python,
            "sys_platform": "linux",
        }


def applies(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


def chosen(name: str, environment: dict[str, str]) -> dict[str, Version]:
    """Return what a lock installs somewhere."""
    found: dict[str, Version] = {}
    for one in pins(name):
        if applies(one.requirement, environment):
            key = canonicalize_name(one.requirement.name)
            assert key not in found, f"{name}: {key} twice for {environment}"
            found[key] = one.version
    return found


class UpToDateTests(SynchronousTestCase):
    """One that fails wants ``make lock UPGRADE=``, or ``make lock`` for the newest of all."""

    def assert_satisfied(self, name: str, wanted: list[Requirement]) -> None:
        for environment in environments():
            there = chosen(name, environment)
            for wish in wanted:
                if applies(wish, environment):
                    version = there.get(canonicalize_name(wish.name))
                    where = f"{name}.txt has {version} for {wish}, {environment['python_version']}"
                    self.assertTrue(version and wish.specifier.contains(version), where)

    def test_every_requirement_is_met_for_every_python_and_machine(self) -> None:
        for name, extra in EXTRAS.items():
            self.assert_satisfied(name, list(wishes(extra)))
        for name, lines in groups().items():
            self.assert_satisfied(name, list(map(Requirement, lines)))

    def test_there_is_a_lock_for_every_extra_and_group_and_no_other(self) -> None:
        extras = set(setup()["options.extras_require"])
        self.assertEqual(extras | {""}, set(EXTRAS.values()))
        self.assertEqual({path.stem for path in LOCKS.iterdir()}, EXTRAS.keys() | groups().keys())

    def test_what_runs_is_what_is_tested(self) -> None:
        for environment in environments():
            tested = chosen("test", environment)
            for name in ("run", "docs", "executable"):
                self.assertLessEqual(chosen(name, environment).items(), tested.items(), name)
        built = {one.requirement.name: one.version for one in pins("build")}
        self.assertEqual(built["setuptools"], chosen("test", next(environments()))["setuptools"])

    def test_setuptools_builds_what_pyproject_asks_for(self) -> None:
        document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        self.assert_satisfied("build", list(map(Requirement, document["build-system"]["requires"])))

    def test_the_pythons_are_those_of_the_classifiers(self) -> None:
        found = re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])
        self.assertLessEqual(set(found), set(PYTHONS))
        text = (ROOT / "tools" / "lock").read_text("utf-8")
        self.assertIn(f"PYTHONS='{' '.join(PYTHONS)}'", text)
        self.assertIn(f"MACHINES='{' '.join(MACHINES)}'", text)

    def test_every_entry_has_hashes_and_nobody_is_named(self) -> None:
        for path in LOCKS.iterdir():
            for one in pins(path.stem):
                self.assertTrue(one.hashes, one.requirement.name)
                for text in one.hashes:
                    self.assertTrue(re.fullmatch(r"sha256:[0-9a-f]{64}", text), text)
                self.assertIsNone(one.requirement.url)
            text = path.read_text("utf-8")
            self.assertIsNone(re.search(r"://|^ *-(?!-hash=)", text, re.MULTILINE), path)


class RangeTests(SynchronousTestCase):
    BOUNDED = ("klein", "msgspec", "twisted", "txredisapi")
    """Those of which names or wording are used that they promise nothing about."""

    def test_they_end_before_the_release_after_the_one_that_is_tested(self) -> None:
        there = chosen("run", next(environments()))
        for wish in wishes(""):
            if wish.name in self.BOUNDED:
                tested = there[wish.name]
                self.assertIn(tested, wish.specifier)
                after = f"{tested.major}.{tested.minor + 1}"
                self.assertNotIn(after, wish.specifier, wish.name)
                self.assertNotIn(f"{tested.major + 1}", wish.specifier, wish.name)
        self.assertLessEqual(set(self.BOUNDED), {wish.name for wish in wishes("")})


class InstallTests(SynchronousTestCase):
    """What installs takes the lock, and builds odingw with what stands there."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def assert_locked(self, commands: list[str], *locks: str) -> None:
        """See that commands install from these locks, then odingw, and nothing else."""
        *from_locks, itself = commands
        self.assertEqual(len(locks), len(from_locks), commands)
        for lock, command in zip(locks, from_locks, strict=True):
            self.assertIn(" --require-hashes --only-binary :all: -r ", command)
            self.assertIn(f"locks/{lock}.txt", command)
        self.assertIn(" --no-deps --no-build-isolation ", itself)

    def commands(self, *arguments: str) -> list[str]:
        """Return what make would install with."""
        command = ["make", "--dry-run", *arguments, f"VENV={self.folder}/venv"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        return [line for line in done.stdout.splitlines() if "pip install" in line]

    def test_make(self) -> None:
        for target, extra in (("lint", "test"), ("docs", "docs"), ("executable", "executable")):
            found = self.commands(target)
            self.assert_locked([found[0], found[2], found[1]], "run", extra)
        self.assert_locked(self.commands("run"), "run")
        found = self.commands("install", f"PREFIX={self.folder}/prefix")
        self.assert_locked(found, "build", "run")

    def test_environments(self) -> None:
        text = (ROOT / "tools" / "make-venv").read_text("utf-8").replace("\\\n", "")
        (line,) = re.findall(r".*pip install.*", text)
        self.assertIn("--require-hashes --only-binary :all:", line)
        self.assertIn("locks/build.txt", line)

    def test_container(self) -> None:
        text = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", "")
        (step,) = (line for line in text.splitlines() if "pip install" in line)
        found = [part for part in step.split("&&") if "pip install" in part]
        self.assert_locked(found, "build", "run")

    def test_audit(self) -> None:
        text = (ROOT / "tools" / "audit").read_text("utf-8")
        self.assertIn('"--require-hashes"', text)
        self.assertIn('LOCKS / "audit.txt"', text)
