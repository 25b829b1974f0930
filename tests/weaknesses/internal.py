"""Ways to ``/internal`` for those who may not use it."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

_TESTS: Final = "tests/test_internal.py::"

INTERNAL: Final[tuple[Weakness, ...]] = (
    Weakness(
        "internal-traceless",
        NEITHER,
        "a proxy on this host that leaves no trace (nginx 1.29.7, as it comes) opens ``/internal``",
        "an endpoint of its own; public ones serve it where users or networks are named",
        f"{_TESTS}PlaceTests::test_roles_of_endpoints",
        (
            Edit(
                "odingw/config/place.py",
                "    if internal.users or internal.allow:\n",
                "    if internal.users or not is_turn_alone(config):\n",
            ),
        ),
    ),
    Weakness(
        "internal-elsewhere",
        NEITHER,
        "``/internal`` of a pool is served on an endpoint that does not serve ``/internal``",
        "refused there too",
        f"{_TESTS}DefaultTests::test_on_its_own_endpoint_alone",
        (
            Edit(
                "odingw/gateway.py",
                'self._servers if "internal" in roles else {},',
                "self._servers,",
            ),
        ),
    ),
    Weakness(
        "internal-unix",
        NEITHER,
        "a proxy before a public unix socket is trusted because servers of a network are",
        "a unix socket is on this host, and must be trusted as such",
        f"{_TESTS}UnixTests::test_its_peers_are_not_those_that_are_trusted",
        (
            Edit(
                "odingw/gateway.py",
                "unix=trusts_unix_sockets(config),",
                "unix=True,",
            ),
        ),
    ),
    Weakness(
        "internal-in-its-place",
        NEITHER,
        "a public or admin endpoint on port 7002, where a proxy leads, gets ``/internal`` with it",
        "refused at the start",
        f"{_TESTS}PlaceTests::test_another_endpoint_in_its_place",
        (
            Edit(
                "odingw/listeners.py",
                "if port == INTERNAL_PORT and not apart:",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "internal-in-silence",
        NEITHER,
        "whom ``/internal`` trusts on public endpoints is not said",
        "the start and ``odingw check`` warn of it",
        "tests/test_review_web.py::AtTheStartTests::test_internal_on_endpoints_that_others_reach",
        (
            Edit(
                "odingw/config/place.py",
                "    if internal.users or not shared:\n",
                "    if True:\n",
            ),
        ),
    ),
    Weakness(
        "internal-lost-servers",
        NEITHER,
        "after an upgrade servers are refused, and nobody is told before rooms are lost",
        "the start and ``odingw check`` warn if the state knows servers that nobody let report",
        f"{_TESTS}KnownServerTests::test_start_and_check_warn_and_consent_ends_it",
        (
            Edit(
                "odingw/config/place.py",
                "    if not count or takes_reports(config):\n",
                "    if True:\n",
            ),
        ),
    ),
    Weakness(
        "internal-refused-local",
        NEITHER,
        "strangers behind a proxy on this host fill the log with refused calls",
        "a line a minute",
        f"{_TESTS}ElsewhereTests::test_programs_on_this_host_once_a_minute",
        (
            Edit(
                "odingw/ops/logs.py",
                "if last is None or now() - last >= pause:",
                "if True:",
            ),
        ),
    ),
    Weakness(
        "admin-rebound",
        NEITHER,
        "a web page whose name is rebound to an admin endpoint reads its metrics and status page",
        "they answer to IP addresses, ``localhost`` and the names in ``admin.hosts``",
        "tests/test_http.py::AdminTests::test_a_rebound_name_is_refused",
        (
            Edit(
                "odingw/web/guard.py",
                "return any(fnmatchcase(name, pattern) for pattern in names)",
                "return True",
            ),
        ),
    ),
    Weakness(
        "internal-unix-proxy",
        NEITHER,
        "what a proxy on a unix socket passes on counts as this host's own calls of ``/internal``",
        "``unix`` in ``listen.trusted_proxies`` makes it a proxy; without users it is refused",
        "tests/test_unix_proxies.py::GuardTests::test_a_trusted_proxy_is_refused",
        (
            Edit(
                "odingw/web/guard.py",
                "is_trusted(socket_peer(request), trusted)",
                "within(socket_peer(request), trusted)",
            ),
        ),
    ),
    Weakness(
        "internal-traces",
        NEITHER,
        "a proxy with headers of its own, or a page on this host, gets private keys without users",
        "headers of delivery networks, of browsers and of a change to HTTP/2 are traces too",
        "tests/test_http.py::OpenInternalTests::test_traces_of_a_proxy_or_a_browser_are_refused",
        (Edit("odingw/web/guard.py", '    *(b"cf-", b"sec-fetch-", b"sec-ch-"),\n', ""),),
    ),
    Weakness(
        "internal-contradiction",
        NEITHER,
        "ODIN servers beside a trusted proxy are refused unsaid, so somebody opens ``/internal``",
        "the start and ``check`` name the contradiction, and the refusal its cause",
        f"{_TESTS}PlaceTests::test_servers_beside_a_trusted_proxy",
        (
            Edit(
                "odingw/config/place.py",
                "    if not refused:\n",
                "    if refused:\n",
            ),
        ),
    ),
)
