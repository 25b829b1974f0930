"""Ways to a key, or into the log."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

KEYS: Final[tuple[Weakness, ...]] = (
    Weakness(
        "published-key",
        NEITHER,
        "the documentation's sample master key works in production, and everybody has it",
        "refused as the key that signs where others can reach an endpoint",
        "tests/test_master_keys.py::PublishedTests::"
        "test_it_does_not_sign_where_others_reach_an_endpoint",
        (Edit("odingw/master_key.py", "        if reached:\n", "        if not reached:\n"),),
    ),
    Weakness(
        "published-key-reach",
        NEITHER,
        "an endpoint that names a file or socket like this host passes for this host's own",
        "the interface alone counts; what is not known can be reached",
        "tests/test_master_keys.py::PublishedTests::test_reach",
        (
            Edit(
                "odingw/config/parts.py",
                'if value.startswith("interface=")]',
                'if "=" in value]',
            ),
        ),
    ),
    Weakness(
        "key-removed",
        NEITHER,
        "the file with the master key goes, and the next start makes another one without a word",
        "refused over a state that was kept with one",
        "tests/test_master_keys.py::KnownKeyTests::test_a_missing_file_is_not_replaced",
        (
            Edit(
                "odingw/stores.py",
                "if not keys and (known.fingerprint or known.given):",
                "if not keys and False:",
            ),
        ),
    ),
    Weakness(
        "key-exchanged",
        NEITHER,
        "a start with another master key signs tokens that the servers refuse",
        "refused, unless the one before is in the list",
        "tests/test_master_keys.py::KnownKeyTests::test_another_key_over_known_servers_is_refused",
        (
            Edit(
                "odingw/stores.py",
                "return known.fingerprint in map(fingerprint, keys)",
                "return True",
            ),
        ),
    ),
    Weakness(
        "key-file-writable",
        NEITHER,
        "a key file that others can write is taken without a word",
        "refused, by the start and by ``odingw check``",
        "tests/test_secret_files.py::EveryFileTests::test_master_keys",
        (
            Edit(
                "odingw/secret_files.py",
                "    if status.st_mode & stat.S_IWOTH:\n        return",
                "    if status.st_mode & stat.S_ISUID:\n        return",
            ),
        ),
    ),
    Weakness(
        "key-file-group",
        NEITHER,
        "a group that has others in it can write a key file",
        "refused, unless nobody else is known to be in it",
        "tests/test_secret_files.py::RuleTests::test_groups",
        (
            Edit(
                "odingw/secret_files.py",
                "return group.gr_name in own and own",
                "return group.gr_name not in own or own",
            ),
        ),
    ),
    Weakness(
        "key-file-owned",
        NEITHER,
        "a key file belongs to another user, who can change it at any time",
        "refused, unless that is root",
        "tests/test_secret_files.py::RuleTests::test_owners",
        (
            Edit(
                "odingw/secret_files.py",
                "return uid not in (_ROOT, os.geteuid())",
                "return uid < 0",
            ),
        ),
    ),
    Weakness(
        "tls-key-writable",
        NEITHER,
        "a TLS key that others can write is taken",
        "refused, by a reload too",
        "tests/test_secret_files.py::EveryFileTests::test_tls_keys",
        (Edit("odingw/web/tls.py", "data = _read(path, read_secret)", "data = _read(path)"),),
    ),
    Weakness(
        "placeholder",
        NEITHER,
        "what an example has in the place of a secret is used as one",
        "refused",
        "tests/test_secret_files.py::EveryFileTests::test_placeholders",
        (Edit("odingw/key_files.py", 'if "…" in text or re.sub', "if re.sub"),),
    ),
    Weakness(
        "committed-key",
        NEITHER,
        "a key is committed and shipped",
        "a test finds it",
        "tests/test_no_secrets.py::FindingTests::test_a_master_key",
        (
            Edit(
                "tests/secret_scan.py",
                'r"^[ \\t]*([A-Za-z0-9+/_-]{43}=?|[0-9A-Fa-f]{64})[ \\t\\r]*$", re.MULTILINE',
                'r"^[ \\t]*([A-Za-z0-9+/_-]{43}=?|[0-9A-Fa-f]{64})[ \\t\\r]*\\Z", re.DOTALL',
            ),
        ),
    ),
    Weakness(
        "odd-characters-in-log",
        NEITHER,
        "names with marks that turn a line or are not seen (U+061C, U+200E, …) stand in the log",
        "escaped, by Unicode category",
        "tests/test_review_web.py::EscapeTests::test_log_lines",
        (
            Edit(
                "odingw/escapes.py",
                "char if char.isprintable() or char in keep else",
                "char if char >= chr(160) or char.isprintable() or char in keep else",
            ),
        ),
    ),
    Weakness(
        "odd-characters-in-json",
        NEITHER,
        "… and in what ``--json`` prints on a terminal",
        "escaped as JSON has it, so that it means the same",
        "tests/test_escapes.py::EscapeTests::test_every_character",
        (
            Edit(
                "odingw/escapes.py",
                'char if char.isprintable() or char == "\\n" else',
                'char if char >= chr(160) or char.isprintable() or char == "\\n" else',
            ),
        ),
    ),
    Weakness(
        "mark-in-secret",
        NEITHER,
        "a byte order mark that an editor put in front of a secret is part of it",
        "skipped, wherever a secret is read",
        "tests/test_documents.py::MarkTests::test_it_is_part_of_no_secret",
        (
            Edit(
                "odingw/documents.py",
                "without_marks(line).strip()",
                "line.strip()",
            ),
        ),
    ),
    Weakness(
        "redis-key-writable",
        NEITHER,
        "a key of a certificate for Redis that others can write lets them choose it",
        "refused, as a key of a server's certificate is",
        "tests/test_secret_files.py::EveryFileTests::test_key_of_the_certificate_for_redis",
        (Edit("odingw/state/redis/tls.py", "read_secret(path)", "path.read_bytes()"),),
    ),
    Weakness(
        "sentinel-password",
        NEITHER,
        "sentinels, and whoever answers in their place, get the password of Redis",
        "they get one of their own, or none",
        "tests/test_redis_connector.py::SentinelTests"
        "::test_a_password_of_redis_is_not_for_sentinels",
        (
            Edit(
                "odingw/state/redis/connector.py",
                "password=address.sentinel_password",
                "password=address.sentinel_password or address.password",
            ),
        ),
    ),
    Weakness(
        "redis-plain",
        NEITHER,
        "without TLS in the URL, files for TLS are silently unused, and passwords go in plain",
        "refused",
        "tests/test_config.py::GoodFileTests::test_files_for_redis",
        (
            Edit(
                "odingw/config/sections.py",
                "address.shared and not address.tls",
                "False",
            ),
        ),
    ),
    Weakness(
        "key-under-a-known-id",
        NEITHER,
        "tokens with wrong signatures under a known key id have the set fetched time and again",
        "once within 30 seconds",
        "tests/test_turn_jwks.py::TimingTests::test_an_unknown_key_id",
        (
            Edit(
                "odingw/turn/jwks.py",
                "if idle and (not self._running or self._pausing()):",
                "if idle and not self._running:",
            ),
        ),
    ),
    Weakness(
        "jwks-by-proxy",
        NEITHER,
        "an HTTP proxy on the way can change the keys that come over http from this host",
        "what comes over http from this host alone takes no detour",
        "tests/test_fetch.py::RealProxyTests::test_keys_over_http_take_no_detour",
        (
            Edit(
                "odingw/fetch.py",
                'if target.scheme == b"http" and self._http_anywhere:',
                'if target.scheme == b"http":',
            ),
        ),
    ),
    Weakness(
        "proxy-refusal",
        NEITHER,
        "whatever an HTTP proxy answers to CONNECT, TLS and the request are sent into it",
        "a status of 2xx alone is a tunnel; others are named in the log, without the proxy's words",
        "tests/test_fetch.py::HostileProxyTests::test_other_answers",
        (Edit("odingw/http_proxies.py", 'elif not status[1].startswith(b"2"):', "elif False:"),),
    ),
    Weakness(
        "proxy-answer",
        NEITHER,
        "an HTTP proxy answers CONNECT without end",
        "16 KiB at most",
        "tests/test_fetch.py::HostileProxyTests::test_other_answers",
        (Edit("odingw/http_proxies.py", "if len(self._head) > _LONGEST_HEAD:", "if False:"),),
    ),
    Weakness(
        "customers-swapped",
        NEITHER,
        "a customer who was removed is let in for an interval, where links to the list are swapped",
        "the file behind the links is looked at",
        "tests/test_customer_watch.py::PollTests::test_links_that_are_swapped",
        (Edit("odingw/file_state.py", "path.stat()", "path.lstat()"),),
    ),
    Weakness(
        "customers-hang",
        NEITHER,
        "a file system that hangs takes one of the few threads for each look at the list",
        "one thread; the next look waits until it is back",
        "tests/test_customer_watch.py::PollTests::test_a_file_system_that_hangs",
        (
            Edit(
                "odingw/customers/sources.py", "        if self._running:\n", "        if False:\n"
            ),
        ),
    ),
    Weakness(
        "key-no-unicode",
        NEITHER,
        "one key of a JWK set that is no Unicode keeps out the users of all the others",
        "that key alone is left out, with its id and the member in the log",
        "tests/test_documents.py::SurrogateTests::test_one_entry_of_a_list",
        (
            Edit(
                "odingw/turn/keys.py",
                "        if not isinstance(found, list):\n",
                "        if True:\n",
            ),
        ),
    ),
    Weakness(
        "customer-no-unicode",
        NEITHER,
        "one customer that is no Unicode keeps all changes of the list from being read",
        "that customer alone is refused, with the member in the log",
        "tests/test_documents.py::SurrogateTests::test_one_customer_of_a_list",
        (Edit("odingw/documents.py", "        if half is None:\n", "        if True:\n"),),
    ),
    Weakness(
        "file-pipe",
        NEITHER,
        "a key file, configuration or list of customers that becomes a pipe stops the gateway",
        "while it runs pipes are refused and nothing is waited for; before, 30 s at most",
        "tests/test_files.py::ReadTests::test_a_pipe_while_the_reactor_runs",
        (
            Edit(
                "odingw/files.py",
                "        if stat.S_ISFIFO(status.st_mode) and not (pipes and patience):\n",
                "        if False:\n",
            ),
        ),
    ),
    Weakness(
        "customer-key-use",
        NEITHER,
        "a customer's key for encryption, or one shown with its private half, is taken",
        "refused by the rule for JWK sets: ``use``, ``key_ops``, ``alg`` and private members",
        "tests/test_tokens_keys.py::JwkTests::test_a_key_for_something_else",
        (Edit("odingw/tokens/keys.py", "        check_use(jwk)\n", "        pass\n"),),
    ),
    Weakness(
        "customer-unseen",
        NEITHER,
        "an id, namespace or key id has characters that nobody sees, so two look the same",
        "refused, with the character in the log",
        "tests/test_customer_directory.py::DirectoryTests::test_names_that_nobody_sees",
        (
            Edit(
                "odingw/customers/directory.py",
                "    if char := unseen(name):\n",
                '    if char := "":\n',
            ),
        ),
    ),
    Weakness(
        "reload-lost",
        NEITHER,
        "keys that are withdrawn while a fetch runs stay good until the next one, SIGHUP or not",
        "a reload fetches again when the present fetch has ended",
        "tests/test_turn_jwks.py::TimingTests::test_an_operator_may_ask_while_a_fetch_runs",
        (Edit("odingw/turn/jwks.py", "            self._again = True\n", "            pass\n"),),
    ),
    Weakness(
        "reload-lost-customers",
        NEITHER,
        "a customer who is taken out while a fetch runs is let in until the next one",
        "a reload fetches again when the present fetch has ended",
        "tests/test_customers.py::RefresherTests::test_a_fetch_that_is_asked_for_anew_follows_the_present_one",
        (
            Edit(
                "odingw/customers/refresher.py",
                "        if self._again and not self._stopped:\n",
                "        if False:\n",
            ),
        ),
    ),
)
