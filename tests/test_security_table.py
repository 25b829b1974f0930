"""The table of weaknesses fits the source and the documentation."""

import json
import re
from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.weaknesses import mutate
from tests.weaknesses.rows import Edit
from tests.weaknesses.table import EXISTING, OTHERS, TABLE, rst

ROOT = Path(__file__).parent.parent


class TableTests(SynchronousTestCase):
    """``python -m tests.weaknesses.mutate`` then runs each row's test without its defence."""

    def test_every_defence_can_be_taken_out(self) -> None:
        """Each text that is replaced is there once, and what comes out is Python."""
        for row in TABLE:
            texts = mutate.edited(ROOT, row.edits)
            for file, text in texts.items():
                self.assertNotEqual((ROOT / file).read_text("utf-8"), text, row.id)

    def test_every_test_is_there(self) -> None:
        for row in TABLE:
            self.assertTrue(mutate.has_test(ROOT, row.test), row.test)
        self.assertFalse(mutate.has_test(ROOT, f"{TABLE[0].test}x"))
        self.assertFalse(mutate.has_test(ROOT, "tests/none.py::A::b"))

    def test_rows_are_named_once(self) -> None:
        names = [row.id for row in TABLE]
        self.assertEqual(len(names), len(set(names)))

    def test_the_documentation_has_the_tables(self) -> None:
        """As ``python -m tests.weaknesses.table`` prints them."""
        text = (ROOT / "docs" / "security.rst").read_text("utf-8")
        self.assertIn(rst(EXISTING, systems=True), text)
        self.assertIn(rst(OTHERS, systems=False), text)

    def test_rows_that_do_not_fit_are_refused(self) -> None:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "a.py").write_text("one = 1\ntwo = 1\n")
            for edit, wanted in (
                (Edit("a.py", "= 3", "= 4"), "is there 0 times"),
                (Edit("a.py", "= 1", "= 2"), "is there 2 times"),
                (Edit("a.py", "one =", "one"), "without the defence"),
                (Edit("b.py", "x", "y"), "No such file"),
            ):
                error = self.assertRaises(mutate.MisfitError, mutate.edited, root, [edit])
                self.assertIn(wanted, str(error))
            found = mutate.edited(root, [Edit("a.py", "one = 1", "one = 2")])
            self.assertEqual({"a.py": "one = 2\ntwo = 1\n"}, found)

    def test_every_documented_secret_has_its_section(self) -> None:
        """What each secret gives, and how it is replaced."""
        text = (ROOT / "docs" / "security.rst").read_text("utf-8")
        for secret in ("access key", "server key", "master key", "TURN secret", "Redis password"):
            self.assertTrue(re.search(rf"^{secret}", text, re.MULTILINE | re.IGNORECASE), secret)


class AuditTests(SynchronousTestCase):
    """``make audit``, with a program that answers as pip-audit does."""

    def ask(self, answer: str) -> tuple[list[str], int, str]:
        tool = run_path(str(ROOT / "tools" / "audit"))
        with TemporaryDirectory() as folder:
            program = Path(folder) / "pip-audit"
            program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
            program.chmod(0o700)
            wishes = [Path(folder) / "0.txt"]
            found: tuple[list[str], int, str] = tool["audit"](program, "pypi", wishes)
        return found

    def test_what_is_vulnerable_is_named(self) -> None:
        good = {"name": "good", "version": "1", "vulns": []}
        bad = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
        odd = {"name": "odd", "skip_reason": "not found"}
        answer = json.dumps({"dependencies": [good, bad, odd], "fixes": []})
        self.assertEqual(
            (["bad 2: CVE-1, mended in 3"], 2, "pypi knows 2 of 3 packages"), self.ask(answer)
        )

    def test_a_service_that_tells_nothing_is_no_clean_bill(self) -> None:
        self.assertEqual(([], 0, "pypi cannot be asked from here"), self.ask(""))
        answer = json.dumps({"dependencies": [{"name": "odd", "skip_reason": "not found"}]})
        self.assertEqual(([], 0, "pypi knows 0 of 1 packages"), self.ask(answer))

    def test_every_version_of_every_lock_is_asked_about(self) -> None:
        tool = run_path(str(ROOT / "tools" / "audit"))
        with TemporaryDirectory() as folder:
            locks = Path(folder)
            (locks / "run.txt").write_text("a==1 \\\n    --hash=sha256:0\nb==2 ; python < '3'\n")
            (locks / "test.txt").write_text("# b==7\na==1\nb==3.1.post2 ; python >= '3'\n")
            found = tool["versions"](locks)
            self.assertEqual({"a": ["1"], "b": ["2", "3.1.post2"]}, found)
            written = [path.read_text() for path in tool["write_wishes"](found, locks)]
        self.assertEqual(["a==1\nb==2\n", "b==3.1.post2\n"], written)
