"""What is installed is all that is needed: a wheel, used from elsewhere."""

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


class WheelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odingw-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_in_folder(self, *command: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def test_twistd_finds_the_plugin_of_an_installed_wheel(self) -> None:
        source = self.folder / "source"
        source.mkdir()
        for name in ("setup.cfg", "pyproject.toml", "README.rst", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for name in ("odingw", "twisted"):
            shutil.copytree(ROOT / name, source / name)
        target = self.folder / "target"
        install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation")
        done = self.run_in_folder(*install, "--target", target, source)
        self.assertEqual(0, done.returncode, done.stderr)
        script = "import odingw.tap; print(odingw.tap.__file__)"
        done = self.run_in_folder(sys.executable, "-c", script, PYTHONPATH=str(target))
        self.assertEqual(str(target / "odingw" / "tap.py"), done.stdout.strip(), done.stderr)
        done = self.run_in_folder(BIN / "twistd", "odingw", "--version", PYTHONPATH=str(target))
        self.assertEqual("odingw 0.1.0\n", done.stdout, done.stderr)
        self.assertFalse((target / "twisted" / "__init__.py").exists())
        self.assertFalse((target / "twisted" / "plugins" / "__init__.py").exists())
        for kind in ("*.py", "*.js", "*.d.ts", "*.html", "*.css", "*.lua", "py.typed"):
            installed = {path.relative_to(target) for path in (target / "odingw").rglob(kind)}
            written = {path.relative_to(ROOT) for path in (ROOT / "odingw").rglob(kind)}
            self.assertEqual(written, installed)
            self.assertTrue(written, kind)

    def test_every_package_is_listed(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        listed = set(setup["options"]["packages"].split())
        packages = {
            ".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "odingw").rglob("__init__.py")
        }
        self.assertEqual(packages | {"twisted.plugins"}, listed)

    def test_the_editable_install_works_from_any_folder(self) -> None:
        done = self.run_in_folder(BIN / "twistd", "odingw", "--version")
        self.assertEqual("odingw 0.1.0\n", done.stdout, done.stderr)
