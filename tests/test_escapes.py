"""What cannot be printed is escaped, wherever it is shown."""

import json
import sys
import unicodedata
from operator import contains

from twisted.trial.unittest import SynchronousTestCase

from odingw.cli.output import Failed, json_text
from odingw.cli.tables import cell
from odingw.config.errors import config_error
from odingw.escapes import in_json, in_text
from tests.test_review_web import ODD


class EscapeTests(SynchronousTestCase):
    def assert_harmless(self, text: str) -> None:
        self.assertEqual([], [char for char in text if not char.isprintable() and char != "\n"])

    def test_every_character(self) -> None:
        """What is escaped is decided by its category, and JSON means the same afterwards."""
        odd = [
            char
            for code, char in enumerate(map(chr, range(sys.maxunicode + 1)))
            if not char.isprintable()
            # Most are unassigned or for private use.
            and (unicodedata.category(char) not in ("Cn", "Co") or code % 101 == 0)
        ]
        self.assertEqual(set("CZ"), {unicodedata.category(char)[0] for char in odd})
        escaped = in_text(",".join(odd))
        self.assertTrue(escaped.isprintable())
        names = [f"{ord(char):x}" if char > "\x1f" else "\\" for char in odd]
        self.assertTrue(all(map(contains, escaped.split(","), names)))
        odd.remove("\n")
        escaped = in_json('["' + '","'.join(odd) + '"]')
        self.assertTrue(escaped.isprintable())
        self.assertEqual(odd, json.loads(escaped))
        for category, least in (("Cc", 65), ("Cf", 160), ("Cs", 2048), ("Zl", 1), ("Zp", 1)):
            chars = map(chr, range(sys.maxunicode + 1))
            found = "".join(char for char in chars if unicodedata.category(char) == category)
            self.assertGreaterEqual(len(found), least)
            self.assertEqual([], [char for char in in_text(found) if char in found])

    def test_what_is_printed_stays(self) -> None:
        for text in ("Grüße, мир, 世界, 😀", "\u05e9\u05dc\u05d5\u05dd", "a b", "\\x41"):
            self.assertEqual((text, text), (in_text(text), in_json(text)))

    def test_tables_and_errors_of_the_command(self) -> None:
        self.assert_harmless(str(cell(ODD)))
        self.assert_harmless(str(Failed(ODD)))
        self.assert_harmless(str(config_error(ODD, ODD, ODD)))
        self.assert_harmless(json_text({ODD: [ODD]}))
        self.assertEqual({ODD: [ODD]}, json.loads(json_text({ODD: [ODD]})))
