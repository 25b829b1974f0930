"""Weaknesses of TurnRest."""

from typing import Final

from tests.weaknesses.rows import TURN, Edit, Weakness

OF_TURNREST: Final[tuple[Weakness, ...]] = (
    Weakness(
        "ignore-jwt",
        TURN,
        "``ignoreJWT`` does the opposite of what its documentation says",
        "as the name says; false, and said loudly if not",
        "tests/test_turn_http.py::RefusedTests::test_who_gets_nothing",
        (
            Edit(
                "odingw/web/turn.py",
                "if turn.settings.ignore_jwt:\n",
                "if not turn.settings.ignore_jwt:\n",
            ),
        ),
    ),
    Weakness(
        "verdict-outlives-token",
        TURN,
        "a token that was validated once stays valid for 5 minutes past its ``exp``",
        "what is remembered of it ends with it",
        "tests/test_turn_auth.py::VerdictTests::test_it_ends_with_the_token",
        (
            Edit(
                "odingw/turn/auth.py",
                "until = min(expiry, now + CACHE_SECONDS)",
                "until = now + CACHE_SECONDS",
            ),
        ),
    ),
    Weakness(
        "verdict-outlives-key",
        TURN,
        "a token that was validated once stays valid when its key is removed",
        "what is remembered ends with any change of keys",
        "tests/test_turn_auth.py::VerdictTests::test_it_ends_when_a_set_changes",
        (
            Edit(
                "odingw/turn/auth.py",
                "            self._keys = keys\n            self._verdicts.clear()\n",
                "            self._keys = keys\n",
            ),
        ),
    ),
    Weakness(
        "any-algorithm",
        TURN,
        "whatever algorithm a key supports is accepted",
        "a list for each type of key, narrowed by its JWK; never ``none`` or HMAC",
        "tests/test_turn_signatures.py::ConfusionTests::test_an_algorithm_that_the_jwk_excludes",
        (
            Edit(
                "odingw/turn/keys.py",
                "        algorithms &= _ED25519 if value.alg in _ED25519 else {value.alg}\n",
                "        pass\n",
            ),
        ),
    ),
    Weakness(
        "turn-leeway",
        TURN,
        "a token is good for 5 minutes after its ``exp``",
        "60 seconds (``turn.leeway``)",
        "tests/test_turn_auth.py::ClaimTests::test_times",
        (
            Edit(
                "odingw/turn/auth.py",
                "if now >= expiry + settings.leeway:",
                "if now >= expiry + 300:",
            ),
        ),
    ),
    Weakness(
        "secrets-logged",
        TURN,
        "tokens and the configuration are logged in full",
        "no token, key, password or secret reaches log, error or admin page",
        "tests/test_security_secrets.py::SecretTests::test_no_secret_is_told",
        (
            Edit(
                "odingw/web/turn.py",
                "        check_length(token, self._token_limit)\n",
                "        check_length(token, self._token_limit)\n"
                "        __import__('twisted.logger').logger.Logger().info('{t}', t=token)\n",
            ),
        ),
    ),
    Weakness(
        "one-turn-secret",
        TURN,
        "one secret: to replace it, credentials that are out fail",
        "a list; the first one signs",
        "tests/test_turn_credentials.py::KnownAnswerTests::test_first_secret_signs",
        (
            Edit(
                "odingw/turn/credentials.py", "settings.secret_keys[0]", "settings.secret_keys[-1]"
            ),
        ),
    ),
    Weakness(
        "turn-paths",
        TURN,
        "any path that begins with ``/turn`` hands out credentials, past a proxy's rules",
        "``/turn`` and ``/turn/``",
        "tests/test_turn_http.py::RefusedTests::test_the_root_is_no_turn_service_by_itself",
        (
            Edit(
                "odingw/web/turn.py",
                '_PATHS: Final = ("/turn", "/turn/")',
                '_PATHS: Final = ("/turn", "/turn/", "/turn<path:rest>")',
            ),
            Edit(
                "odingw/web/turn.py",
                "def get(request: GatewayRequest) -> bytes | Deferred[bytes]:",
                'def get(request: GatewayRequest, rest: str = "") -> bytes | Deferred[bytes]:',
            ),
        ),
    ),
)
