"""Numbers and names of customers' documents and of the configuration are bounded."""

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.config.types import LONGEST_NAME
from odingw.customers.directory import MOST_PROBLEMS, Directory, combined, directory
from odingw.customers.sources import FileSource
from odingw.errors import ConfigError
from odingw.grid.usage import LONGEST_CUSTOMER
from odingw.ops.metrics import Metrics
from odingw.turn.settings import from_turnrest_json
from tests.config_case import ConfigCase
from tests.customer_documents import access_key, document

LARGEST: Final = 2**53 - 1

OUT_OF_RANGE: Final = (
    str(LARGEST + 1),
    str(2**63),
    str(2**64),
    "1" + "0" * 400,
    "1" * 5000,
    "1e400",
    "-1e400",
    "1e308",
    "-1",
    "1.5",
)
"""Numbers in JSON that are no limit."""


class LimitNumberTests(SynchronousTestCase):
    """A limit that is out of range costs its customer, and nobody else."""

    def good_and(self, number: str) -> bytes:
        """Return a list with one good customer, and two whose limits are this number."""
        good, one, two = (
            json.dumps(each)
            for each in (
                document("good", access_key(), maxPeers=LARGEST, note="NUMBER"),
                document("peers", access_key("k2"), maxPeers="NUMBER"),
                document("rooms", access_key("k3"), maxRooms="NUMBER"),
            )
        )
        return f"[{one},{good},{two}]".replace('"NUMBER"', number).encode()

    def fetched(self, data: bytes) -> Directory:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "customers.json"
        path.write_bytes(data)
        source = FileSource(path, defer_to_thread=maybeDeferred)
        fetched: Any = source.fetch()
        return directory(self.successResultOf(fetched))

    def test_a_file(self) -> None:
        for number in OUT_OF_RANGE:
            found = self.fetched(self.good_and(number))
            self.assertEqual(["good"], list(found.customers), number[:20])
            self.assertEqual(["k1"], list(found.keys))
            self.assertEqual(LARGEST, found.customers["good"].max_peers)
            first, second = found.problems
            self.assertRegex(first, r"^customer 'peers' is refused: maxPeers must be .{1,80}$")
            self.assertRegex(second, r"^customer 'rooms' is refused: maxRooms must be .{1,80}$")

    def test_a_file_that_is_no_json_all_the_same(self) -> None:
        for data, words in (
            (b'[{"id": 1e400, "x": NaN}]', "it is not JSON"),
            (b'[{"id": 1e400, "x": Infinity}]', "it is not JSON"),
            (b'[1e400, "\\ud800",]', "it is not JSON: line 1, column 1"),
            (b"[1e400", "it is not JSON"),
            (b"[1e400] x", "it is not JSON"),
            (b'[1e400, "\xff"]', "it is not JSON"),
            (b"[1e400, " + b"[" * 100_000, "it is not JSON"),
        ):
            with self.assertRaises(Exception, msg=data[:30]) as caught:  # shown below
                self.fetched(data)
            self.assertIn(words, str(caught.exception), data[:30])

    def test_a_function(self) -> None:
        class Odd(int):
            pass

        for number in (LARGEST + 1, 10**400, 10**5000, math.inf, math.nan, -1, Odd(2**60), 1e300):
            found = directory(
                [document("bad", access_key(), maxPeers=number), document("good", access_key("k2"))]
            )
            self.assertEqual(["good"], list(found.customers))
            self.assertIn("maxPeers must be", found.problems[0])

    def test_metrics_are_shown_whatever_customers_there_are(self) -> None:
        documents: list[object] = [
            document(f"c{number}", maxPeers=limit, maxRooms=limit)
            for number, limit in enumerate((0, 1, LARGEST, LARGEST + 1, 10**400, math.inf))
        ]
        documents += [document("\ud800", access_key()), document("x" * 300)]
        metrics = Metrics(lambda: 0.0)
        found = directory(documents)
        metrics.watch_limits(lambda: found.customers.values())
        page, _ = metrics.page("text/plain")
        found_limit = re.search(
            rb'^odingw_customer_peers_limit{customer="c2"} (.+)$', page, re.MULTILINE
        )
        assert found_limit is not None
        self.assertEqual(2.0**53 - 1, float(found_limit[1]))
        self.assertEqual(["c0", "c1", "c2"], list(found.customers))


class CustomerNameTests(SynchronousTestCase):
    def test_names_that_are_too_long_or_no_text(self) -> None:
        good, long, half = "x" * LONGEST_NAME, "x" * (LONGEST_NAME + 1), "\udcff"
        found = directory(
            [
                document(good, access_key(good, namespace=good)),
                document(long, access_key("k1")),
                document(half, access_key("k2")),
                document("acme", access_key("k3", namespace=long), access_key(long)),
                document("beta", access_key("k4", namespace=half), access_key(half)),
            ]
        )
        self.assertEqual([good, "acme", "beta"], list(found.customers))
        self.assertEqual([good], list(found.keys))
        self.assertEqual(6, len(found.problems))
        for line in found.problems:
            self.assertRegex(line, "must have at most 256 characters|half of a surrogate pair")

    def test_both_sides_know_the_same_names(self) -> None:
        """What a server reports is cut there, so no configured name may be longer."""
        self.assertEqual(LONGEST_CUSTOMER, LONGEST_NAME)

    def test_problems_are_counted_when_there_are_many(self) -> None:
        count = 3 * MOST_PROBLEMS
        found = directory([1] * count)
        self.assertEqual(MOST_PROBLEMS + 1, len(found.problems))
        self.assertIn(f"{count - MOST_PROBLEMS} more problems", found.problems[-1])
        both = combined(found, found)
        self.assertEqual(MOST_PROBLEMS + 1, len(both.problems))


class ConfigNumberTests(ConfigCase):
    def test_limits_of_the_configuration(self) -> None:
        for number in ("2147483648", "1" + "0" * 400, "inf", "nan", "1e400", "-1", "1.5"):
            for key in ("max_peers", "max_rooms"):
                self.path.write_text(f'[[gateway.customers]]\nid = "a"\n{key} = {number}\n')
                self.assertIn(f"gateway.customers[0].{key}: ", self.refusal(self.path))

    def test_a_number_of_thousands_of_digits_is_found(self) -> None:
        self.path.write_text(f'[[gateway.customers]]\nid = "a"\nmax_peers = {"1" * 5000}\n')
        line = self.refusal(self.path)
        self.assertIn("invalid TOML: max_peers in line 3 has too many digits", line)
        self.assertLess(len(line), 300)

    def test_times(self) -> None:
        for number in ("0", "1e-300", "0.0001", "nan", "inf", "1e400", "1" + "0" * 400, "-1"):
            for key in ("gateway.customer_source.interval", "gateway.report_interval"):
                source = "" if "report" in key else 'gateway.customer_source.file = "x"\n'
                self.path.write_text(f"{source}{key} = {number}\n")
                self.assertIn(f"{key}: ", self.refusal(self.path))

    def test_names(self) -> None:
        long = "x" * (LONGEST_NAME + 1)
        for text, key in (
            (f'id = "{long}"', "gateway.customers[0].id"),
            (
                f'id = "a"\naccess_keys = [{{ namespace = "{long}", public_key = {{}} }}]',
                "gateway.customers[0].access_keys[0].namespace",
            ),
        ):
            self.path.write_text(f"[[gateway.customers]]\n{text}\n")
            line = self.refusal(self.path)
            self.assertIn(f"{key}: ", line)
            self.assertIn("1 to 256 characters", line)

    def test_a_turnrest_file(self) -> None:
        good = b'{"secretKey": "0123456789abcdef", "turnURIS": ["turn:a"], "more": 1e400'
        for number in OUT_OF_RANGE:
            text = b'%b, "ttl": %b}' % (good, number.encode())
            error = self.assertRaises(ConfigError, from_turnrest_json, text, "t.json")
            self.assertIn("t.json: ttl: ", str(error), number[:20])
        settings, warnings = from_turnrest_json(good + b"}", "t.json")
        self.assertEqual(43200, settings.ttl)
        self.assertIn("more", "".join(warnings))
