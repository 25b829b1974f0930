"""Requests that are hidden in others, for a proxy to hand on unseen."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

_CHANNEL: Final = "odingw/web/channel.py"
_DIRECT: Final = (
    "tests/test_smuggling.py::DirectTests::test_each_is_refused_or_read_as_the_standard_says"
)

SMUGGLING: Final[tuple[Weakness, ...]] = (
    Weakness(
        "smuggled-coding",
        NEITHER,
        "``Transfer-Encoding: identity`` is read as if it were not there, and a body as a request",
        "any coding but one ``chunked`` is refused, and the connection ends",
        _DIRECT,
        (
            Edit(
                _CHANNEL,
                'if codings and [coding.lower() for coding in codings] != [b"chunked"]:',
                "if False:",
            ),
        ),
    ),
    Weakness(
        "smuggled-rest",
        NEITHER,
        "what follows a body that was refused is read as a request",
        "nothing more is read, and the connection ends",
        _DIRECT,
        (
            Edit(
                _CHANNEL,
                'close without reading it."""\n        self._refuse()\n',
                'close without reading it."""\n',
            ),
        ),
    ),
)
