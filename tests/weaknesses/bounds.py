"""What strangers may fill, and rooms that they may take."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

BOUNDS: Final[tuple[Weakness, ...]] = (
    Weakness(
        "turn-origins",
        NEITHER,
        "pages of any origin get TURN credentials, though some are named",
        "one that is not named gets no CORS header",
        "tests/test_turn_http.py::ClaimAndOriginTests::test_who_asks_is_named",
        (Edit("odingw/web/turn.py", "asking if asking in origins else None", "asking"),),
    ),
    Weakness(
        "turn-user-of-a-float",
        NEITHER,
        "two users whose long numbers are one float get one TURN user name",
        "a number that may have been another one names nobody",
        "tests/test_turn_claims.py::UserTests::test_what_does_not",
        (
            Edit(
                "odingw/turn/claims.py",
                "value.is_integer() and abs(value) < _EXACT",
                "value.is_integer()",
            ),
        ),
    ),
    Weakness(
        "turn-probe-allocates",
        NEITHER,
        "looking whether a TURN server is there fills its relay ports",
        "the Allocate request names no transport, so it can only be refused",
        "tests/test_turn_watch.py::RuleTests::test_a_turn_server_that_ignores_binding_is_alive",
        (
            Edit(
                "odingw/turn/probe.py",
                "Message(Kind.REQUEST, method, self._random_bytes(TRANSACTION_BYTES))",
                "Message(Kind.REQUEST, method, self._random_bytes(TRANSACTION_BYTES), "
                "((stun.Attribute.REQUESTED_TRANSPORT, bytes([stun.UDP, 0, 0, 0])),))",
            ),
        ),
    ),
)
