"""Weaknesses of the existing gateway."""

from typing import Final

from tests.weaknesses.rows import GATEWAY, Edit, Weakness

OF_THE_GATEWAY: Final[tuple[Weakness, ...]] = (
    Weakness(
        "internal-open",
        GATEWAY,
        "``/internal`` is open to everybody and hands out private keys",
        "an endpoint of its own that this host alone reaches, unless users or networks are named",
        "tests/test_security.py::GuardTests::test_without_users_it_is_this_hosts_alone",
        (
            Edit(
                "odingw/web/guard.py",
                "elif not within(address, self._allow):",
                "elif False:",
            ),
        ),
    ),
    Weakness(
        "internal-proxied",
        GATEWAY,
        "a proxy on the same host opens ``/internal`` to everybody behind it",
        "public endpoints serve it by consent alone, and without users refuse what shows that it "
        "came through a proxy or a browser",
        "tests/test_http.py::OpenInternalTests::test_traces_of_a_proxy_or_a_browser_are_refused",
        (
            Edit(
                "odingw/web/guard.py",
                "if proxied or shows_proxy(request, self._trusted):",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "internal-rebinding",
        GATEWAY,
        "a web page whose name is rebound to this host can call ``/internal``",
        "without users, ``Host`` must be an IP address or localhost",
        "tests/test_http.py::OpenInternalTests::test_a_name_that_may_be_rebound_is_refused",
        (Edit("odingw/web/guard.py", "if not is_local_name(request):\n", "if False:\n"),),
    ),
    Weakness(
        "internal-bearer",
        GATEWAY,
        "with Basic users set, ``/internal`` still takes any customer's Bearer token",
        "Basic only",
        "tests/test_http.py::UserTests::test_a_customers_token_is_no_credential",
        (
            Edit(
                "odingw/web/guard.py",
                'if scheme.lower() != "basic":\n'
                '            raise self._refuse("invalid or missing authorization")',
                'if scheme.lower() == "bearer":\n            return self._digests[0][0]',
            ),
        ),
    ),
    Weakness(
        "internal-timing",
        GATEWAY,
        "how long a wrong password takes tells how much of it is right",
        "digests of equal length, compared in constant time, all of them each time",
        "tests/test_security.py::ConstantTimeTests::test_passwords",
        (
            Edit(
                "odingw/web/guard.py",
                "if hmac.compare_digest(given, digest):",
                "if given == digest:",
            ),
        ),
    ),
    Weakness(
        "internal-any-server",
        GATEWAY,
        "whoever may call ``/internal`` may pose as any server, and gets its key",
        "``gateway.internal.servers``, and ``servers`` of each user",
        "tests/test_http.py::UserTests::test_a_user_speaks_for_its_own_servers",
        (
            Edit(
                "odingw/rpc/server_api.py", "if patterns and not any(\n", "if False and not any(\n"
            ),
        ),
    ),
    Weakness(
        "internal-cors",
        GATEWAY,
        "CORS headers let pages of any origin read what ``/internal`` answers",
        "none on ``/internal`` and admin",
        "tests/test_http.py::OpenInternalTests::test_from_loopback",
        (
            Edit(
                "odingw/web/replies.py",
                "(_COMMON if internal else CORS | _COMMON).items()",
                "(CORS | _COMMON).items()",
            ),
            Edit(
                "odingw/web/replies.py",
                "in _INTERNAL_RAW if internal else _PUBLIC_RAW:",
                "in _PUBLIC_RAW:",
            ),
        ),
    ),
    Weakness(
        "nobody-loaded",
        GATEWAY,
        "if no customer key could be loaded, everybody is let in",
        "nobody is",
        "tests/test_security.py::StrangerTests::test_nobody_is_let_in_while_no_key_is_known",
        (
            Edit(
                "odingw/rpc/callers.py",
                "demo = self._rules.unknown_customers\n",
                "demo = self._rules.unknown_customers or DemoLimits(25, 5, 100)\n",
            ),
        ),
    ),
    Weakness(
        "demo-methods",
        GATEWAY,
        "in demo mode, made-up keys may close rooms and ban users",
        "``Connect`` only",
        "tests/test_security.py::StrangerTests::test_demo_users_may_connect_and_nothing_else",
        (
            Edit(
                "odingw/rpc/callers.py",
                'methods=frozenset(("Connect",)),',
                "methods=methods,",
            ),
        ),
    ),
    Weakness(
        "demo-namespace",
        GATEWAY,
        "in demo mode, a made-up key id gets into a customer's namespace of that name",
        "never into a configured one",
        "tests/test_security.py::StrangerTests::test_a_demo_user_is_never_a_configured_customer",
        (Edit("odingw/rpc/callers.py", "if self._reserved(customer):", "if False:"),),
    ),
    Weakness(
        "token-subject",
        GATEWAY,
        "a token without ``sub`` may call every method",
        "refused (``require_subject``)",
        "tests/test_gateway.py::StrictTests::test_what_strict_settings_refuse",
        (Edit("odingw/rpc/callers.py", "if self._rules.require_subject:", "if False:"),),
    ),
    Weakness(
        "token-room",
        GATEWAY,
        "a token for room ``1`` closes room ``10``, one for an empty name all rooms",
        "the whole name must fit (``room_match``)",
        "tests/test_gateway.py::StrictTests::test_management",
        (
            Edit(
                "odingw/rpc/callers.py",
                "    if room in caller.rooms:\n        return False\n",
                "    if room.startswith(caller.rooms):\n        return False\n",
            ),
        ),
    ),
    Weakness(
        "token-leeway",
        GATEWAY,
        "a token is good for 5 minutes after its ``exp``",
        "60 seconds (``leeway``)",
        "tests/test_gateway.py::StrictTests::test_what_strict_settings_refuse",
        (Edit("odingw/tokens/claims.py", "if off > policy.leeway:", "if off > 300:"),),
    ),
    Weakness(
        "token-for-ever",
        GATEWAY,
        "a token without ``exp`` lives for ever",
        "refused (``require_expiry``)",
        "tests/test_gateway.py::StrictTests::test_what_strict_settings_refuse",
        (Edit("odingw/tokens/claims.py", "elif policy.require_expiry:", "elif False:"),),
    ),
    Weakness(
        "token-numeric-kid",
        GATEWAY,
        "a numeric ``kid`` is taken for its digits",
        "refused",
        "tests/test_tokens_jws.py::ParseTests::test_headers",
        (
            Edit(
                "odingw/tokens/jws.py",
                "    if not isinstance(kid, str):\n"
                '        _malformed("token header kid must be a string")',
                "    if not isinstance(kid, str):\n        kid = str(kid)",
            ),
        ),
    ),
    Weakness(
        "token-crit",
        GATEWAY,
        "``crit`` headers that are not understood are ignored",
        "refused (RFC 7515, section 4.1.11)",
        "tests/test_tokens_jws.py::ParseTests::test_headers",
        (Edit("odingw/tokens/jws.py", 'if "crit" in members:', "if False:"),),
    ),
    Weakness(
        "token-dump",
        GATEWAY,
        "claims of a wrong type are answered with a validator's dump, values and all",
        "one line that names the claim and shows no value",
        "tests/test_tokens_claims.py::DecodeTests::test_wrong_types",
        (
            Edit(
                "odingw/tokens/claims.py",
                "must be {_WANTED[field.name]}",
                "must be {_WANTED[field.name]}: {bytes(members[field.name])!r}",
            ),
        ),
    ),
    Weakness(
        "inherited-methods",
        GATEWAY,
        "methods inherited from the language's base object can be called",
        "a table of methods, and nothing else",
        "tests/test_jsonrpc.py::SingleTests::test_methods_that_do_not_exist",
        (
            Edit(
                "odingw/rpc/jsonrpc.py",
                "method = self._methods.get(name)\n",
                "method = self._methods.get(name) or getattr(self._methods, name, None)\n",
            ),
        ),
    ),
    Weakness(
        "any-verb",
        GATEWAY,
        "any HTTP method calls a method, so that a link or an image can",
        "POST only",
        "tests/test_http.py::ErrorTests::test_405_names_the_methods_that_work",
        (
            Edit(
                "odingw/web/app.py",
                '@app.route(path, methods=["POST"], endpoint=f"POST {path}", strict_slashes=True)',
                '@app.route(path, methods=["POST", "GET", "PUT"], endpoint=f"POST {path}", '
                "strict_slashes=True)",
            ),
        ),
    ),
    Weakness(
        "unbounded-bodies",
        GATEWAY,
        "bodies of any size are read",
        "``limits.body`` and ``limits.report_body``, the latter for those who may report",
        "tests/test_http.py::BodyTests::test_a_body_that_is_too_large_is_refused_before_it_is_read",
        (Edit("odingw/web/site.py", "small = self.limits.body\n", "small = 2**40\n"),),
    ),
    Weakness(
        "unbounded-batches",
        GATEWAY,
        "one request may hold any number of calls",
        "``limits.batch``",
        "tests/test_security.py::BatchTests::test_a_batch_is_bounded",
        (Edit("odingw/rpc/jsonrpc.py", "if len(parts) > self._batch:", "if False:"),),
    ),
    Weakness(
        "forgotten-bans",
        GATEWAY,
        "who is banned comes back when the room is placed anew",
        "bans are kept here too",
        "tests/test_gateway.py::BanTests::test_a_banned_room_stays_closed_when_it_is_gone",
        (
            Edit(
                "odingw/grid/grid.py",
                "if remaining := self._bans.remaining(room, None, now):",
                "if remaining := 0.0:",
            ),
        ),
    ),
    Weakness(
        "limits-passed",
        GATEWAY,
        "ten Connects at once pass a limit of two",
        "limits count who is under way",
        "tests/test_gateway.py::LimitTests"
        "::test_ten_connects_give_three_tokens_and_a_full_house_can_be_joined_again",
        (
            Edit(
                "odingw/grid/usage.py",
                "used = counts.peers + counts.reservations - held if counts else 0",
                "used = counts.peers if counts else 0",
            ),
        ),
    ),
    Weakness(
        "shared-pools",
        GATEWAY,
        "pools change paths only: one pool's tokens reach another one's servers",
        "a pool has its own servers and rooms",
        "tests/test_http.py::PoolTests::test_pools_are_separate_and_the_default_has_two_names",
        (
            Edit(
                "odingw/gateway.py",
                "store = self.store.pool(pool)\n",
                'store = self.store.pool("")\n',
            ),
        ),
    ),
    Weakness(
        "colliding-hashes",
        GATEWAY,
        "rooms of different namespaces can have one hash, as its length bytes wrap",
        "long names are written so that they cannot",
        "tests/test_security.py::HashTests::test_long_names_of_two_namespaces_differ",
        (
            Edit(
                "odingw/grid/rooms.py",
                "if any(len(part) > 255 for part in parts):",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "one-master-key",
        GATEWAY,
        "one master key: to replace it, every client is refused until all servers restart",
        "several; a server's tokens are signed with the key that it was last given",
        "tests/test_security.py::SigningTests"
        "::test_a_room_token_is_signed_with_the_key_that_its_server_has",
        (
            Edit(
                "odingw/rpc/client_api.py",
                "self._keys.signing(placed.address, placed.kid)",
                "self._keys[placed.address]",
            ),
        ),
    ),
)
