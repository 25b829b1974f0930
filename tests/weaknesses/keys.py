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
)
