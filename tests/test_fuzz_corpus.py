"""Every input of the corpus, and many that are made from them: parsers keep their promises.

The table of targets is :mod:`tests.fuzz.targets`. ``make fuzz`` looks for more, for longer.
"""

from functools import cache, partial
from typing import Final, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.growing import GROWING
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, corpus
from tests.fuzz.words import WORDS
from tests.fuzz.work import count_lines, peak_of_memory

Change: TypeAlias = tuple[int, int, int, bytes]
"""What is done, where, to how many bytes, and with which word."""

_EXAMPLES: Final = 40
_SIZE: Final = 150
_SLACK: Final = 3.0
"""How much more work twice the input may make; four times as much is quadratic."""

_BYTES_PER_BYTE: Final = 400
"""How much memory a byte of input may cost, for an instant."""

_ANY_INPUT: Final = 20 * 1024 * 1024
"""How much memory any input may cost; a list of customers is read in one piece."""


@cache
def _seeds(name: str) -> tuple[bytes, ...]:
    return tuple(file.read_bytes() for file in corpus(name))


def _changed(data: bytes, changes: list[Change]) -> bytes:
    """Change data at some places: take away, put in, repeat, or replace."""
    for kind, place, length, word in changes:
        start = place % (len(data) + 1)
        end = min(len(data), start + length)
        put = (b"", word, data[start:end] + word, data[start:end] * 3)[kind]
        data = data[:start] + put + data[start if kind == 1 else end :]
    return data


_changes = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 10_000),
        st.integers(0, 30),
        st.sampled_from(WORDS) | st.binary(max_size=2),
    ),
    max_size=5,
)


class CorpusTests(SynchronousTestCase):
    def test_every_target_has_seeds(self) -> None:
        self.assertEqual(TARGETS.keys(), SEEDS.keys())

    def test_corpus(self) -> None:
        """What people thought of, and what the fuzzer has found to reach new code."""
        for name, target in TARGETS.items():
            for file in corpus(name):
                try:
                    target(file.read_bytes())
                except Exception as error:
                    error.add_note(f"again: python -m tests.fuzz {name} --once {file}")
                    raise


class MutationTests(SynchronousTestCase):
    """Inputs like those of the corpus; the same ones at each run."""

    def test_all(self) -> None:
        for name in TARGETS:
            self._try(name)

    def _try(self, name: str) -> None:
        target = TARGETS[name]

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(_seeds(name)), _changes, st.sampled_from(_seeds(name)))
        def run(data: bytes, changes: list[Change], other: bytes) -> None:
            half = len(other) // 2
            target(_changed(data, [*changes, (1, len(changes), 0, other[half : half + 20])]))

        try:
            run()
        except Exception as error:
            error.add_note(f"target: {name}")
            raise


class GrowthTests(SynchronousTestCase):
    """The work for an input is in proportion to its length, and memory is bounded."""

    def test_work(self) -> None:
        for name, families in GROWING.items():
            for family, grow in families:
                once, double = self._lines(name, grow(_SIZE)), self._lines(name, grow(2 * _SIZE))
                text = f"{name}, {family}: {once} lines, and {double} for twice as much"
                self.assertLess(double, _SLACK * once, text)

    def _lines(self, name: str, data: bytes) -> int:
        TARGETS[name](data)  # what is made once is not counted
        return count_lines(partial(TARGETS[name], data))

    def test_memory(self) -> None:
        for name, families in GROWING.items():
            for family, grow in families:
                data = grow(_SIZE)
                peak = peak_of_memory(partial(TARGETS[name], data))
                most = _ANY_INPUT + _BYTES_PER_BYTE * len(data)
                self.assertLess(peak, most, f"{name}, {family}: {len(data)} bytes")
