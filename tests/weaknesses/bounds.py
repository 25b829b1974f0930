"""What strangers may fill, and rooms that they may take."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

BOUNDS: Final[tuple[Weakness, ...]] = (
    Weakness(
        "room-taken",
        NEITHER,
        "an ODIN server that is bound by ``servers`` takes a room that was just placed elsewhere",
        "a running reservation keeps it against a server that had not named it before",
        "tests/test_grid.py::ContestTests::test_a_running_reservation_keeps_a_room",
        (
            Edit(
                "odingw/grid/reports.py",
                "    if not intake.is_first and any(\n",
                "    if False and any(\n",
            ),
        ),
    ),
    Weakness(
        "room-taken-in-two-steps",
        NEITHER,
        "it names the room without clients first, and takes it when the next client is sent there",
        "since when a server has named a room is remembered",
        "tests/test_grid.py::ContestTests"
        "::test_a_room_that_is_named_without_clients_first_is_not_taken_either",
        (
            Edit(
                "odingw/grid/reports.py",
                "    named = server.named.get(base.id, intake.now)\n",
                "    named = 0.0 if base.id in server.named else intake.now\n",
            ),
        ),
    ),
    Weakness(
        "room-taken-in-a-fleet",
        NEITHER,
        "it reports to another gateway than the one that has just placed the room",
        "Redis judges that, and knows of all places that are reserved",
        "tests/test_redis_store.py::PlacementTests"
        "::test_a_room_that_another_gateway_has_just_placed_is_not_taken",
        (
            Edit(
                "odingw/state/redis/scripts/report.lua",
                "        kept[base.id] = true\n        return false\n",
                "        kept[base.id] = true\n        return true\n",
            ),
        ),
    ),
    Weakness(
        "server-without-its-gateway",
        NEITHER,
        "a gateway that dies takes its servers' rooms along, under the feet of their peers",
        "such a server keeps its rooms for 300 seconds, and gets no new ones",
        "tests/test_redis_silence.py::GatewayGoneTests::test_rooms_stay",
        (
            Edit(
                "odingw/state/redis/scripts/tick.lua",
                "if leased or silent > unheard_timeout then",
                "if true then",
            ),
        ),
    ),
    Weakness(
        "gateway-that-stutters",
        NEITHER,
        "a gateway that stands still again and again keeps dead servers of others alive",
        "it excuses those that report to it",
        "tests/test_redis_silence.py::GatewayCutTests"
        "::test_one_that_stutters_excuses_its_own_alone",
        (
            Edit(
                "odingw/state/redis/scripts/tick.lua",
                "then excuse(gateway) end",
                "then excuse(nil) end",
            ),
        ),
    ),
    Weakness(
        "redis-stale-master",
        NEITHER,
        "a sentinel that is late names a replica as the master",
        "a master is asked for its role",
        "tests/test_redis_connector.py::SentinelTests::test_a_master_that_is_none",
        (
            Edit(
                "odingw/state/redis/connector.py",
                'if role[0] != b"master":',
                "if not role:",
            ),
        ),
    ),
    Weakness(
        "redis-words",
        NEITHER,
        "a Redis that gives another reason each time fills the log",
        "each reason is logged once, and 50 of them until all is well again",
        "tests/test_redis_refusals.py::WordsTests::test_reasons_without_end",
        (Edit("odingw/state/redis/words.py", " and len(self._said) < _MOST_LINES", ""),),
    ),
    Weakness(
        "redis-evicts",
        NEITHER,
        "a Redis that evicts keys when it is full loses bans and tasks without a word",
        "refused",
        "tests/test_redis_refusals.py::PolicyTests::test_what_a_redis_says",
        (
            Edit(
                "odingw/state/redis/words.py",
                'policy.startswith(b"allkeys-")',
                'policy == b"allkeys-random"',
            ),
        ),
    ),
    Weakness(
        "redis-junk",
        NEITHER,
        "a row in Redis that cannot be read ends the link",
        "it is skipped, counted and named",
        "tests/test_redis_layout.py::JunkTests::test_rows",
        (
            Edit(
                "odingw/state/redis/line.py",
                "            self._begin_anew(pool, lost)\n            return\n",
                "            assert self._link\n            self._link.close()\n",
            ),
        ),
    ),
    Weakness(
        "redis-key-gone",
        NEITHER,
        "where a key was deleted or evicted, rooms are placed again",
        "each has a marker; where it is missing, all gateways write again what they know",
        "tests/test_redis_layout.py::DeletedTests::test_rows",
        (
            Edit(
                "odingw/state/redis/scripts/look.lua",
                "  if redis.pcall('HEXISTS', K[name], '') ~= 1 then error('LOST ' .. name) end\n",
                "",
            ),
        ),
    ),
    Weakness(
        "redis-lost",
        NEITHER,
        "a Redis that has lost its data has new rooms placed before all have told what they know",
        "none is placed until all gateways with a lease have written",
        "tests/test_redis_outage.py::EmptiedTests::test_no_new_room_before_all_have_written",
        (
            Edit(
                "odingw/state/redis/scripts/books.lua",
                "return call('ZCOUNT', K.awaited, now, '+inf') == 0",
                "return true",
            ),
        ),
    ),
    Weakness(
        "demo-rate",
        NEITHER,
        "in demo mode a made-up key id voids ``limits.requests_per_second_per_key``",
        "demo users are counted by address",
        "tests/test_bounds.py::DemoRateTests::test_another_key_id_is_no_other_caller",
        (Edit("odingw/web/api.py", "        if not caller.is_demo:\n", "        if True:\n"),),
    ),
    Weakness(
        "rate-memory",
        NEITHER,
        "what is counted by is kept, 100,000 times, as long as a stranger makes it",
        "what is long is kept as its hash",
        "tests/test_bounds.py::RateTableTests::test_what_is_kept_of_a_key_is_small",
        (
            Edit(
                "odingw/web/rate.py",
                "return key if len(key) <= LONGEST_KEY else sha256(key.encode()).hexdigest()",
                "return key",
            ),
        ),
    ),
    Weakness(
        "demo-names",
        NEITHER,
        "in demo mode a key id of any length becomes a customer and a namespace",
        "256 characters at most",
        "tests/test_bounds.py::DemoNameTests::test_a_long_key_id_is_nobodys",
        (
            Edit(
                "odingw/rpc/callers.py",
                "        if len(customer) > LONGEST_CUSTOMER:\n",
                "        if False:\n",
            ),
        ),
    ),
    Weakness(
        "server-token-names",
        NEITHER,
        "a server's token, which has no limits, names a customer of any length",
        "256 characters at most",
        "tests/test_bounds.py::DemoNameTests::test_names_that_a_server_signs",
        (
            Edit(
                "odingw/rpc/callers.py",
                "if max(len(customer), len(namespace)) > LONGEST_CUSTOMER:",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "report-version",
        NEITHER,
        "a server's version, of megabytes, is kept, logged and shown",
        "100 characters of it",
        "tests/test_bounds.py::ReportTests::test_a_version_is_cut",
        (
            Edit(
                "odingw/rpc/server_api.py",
                "params.version[:LONGEST_VERSION],",
                "params.version,",
            ),
        ),
    ),
    Weakness(
        "report-customer",
        NEITHER,
        "the customer of a reported room, of megabytes, is kept and counted by",
        "256 characters of it",
        "tests/test_bounds.py::ReportTests::test_a_customer_is_cut",
        (
            Edit(
                "odingw/grid/reports.py",
                "return room.customer[:LONGEST_CUSTOMER]",
                "return room.customer",
            ),
        ),
    ),
    Weakness(
        "report-servers",
        NEITHER,
        "whoever may report makes up servers, each of which is kept and shown in metrics",
        "10,000 in a pool",
        "tests/test_bounds.py::ReportTests::test_the_number_of_servers",
        (
            Edit(
                "odingw/rpc/server_api.py",
                "if len(known) >= MOST_SERVERS and address not in known:",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "contested-lines",
        NEITHER,
        "a server that names thousands of others' rooms writes as many lines into the log",
        "20 lines a report, and one with the number of the others",
        "tests/test_bounds.py::ContestedTests::test_lines_about_contested_rooms",
        (
            Edit(
                "odingw/grid/reports.py",
                "        if self.contests <= MOST_CONTESTS:\n",
                "        if True:\n",
            ),
        ),
    ),
    Weakness(
        "ban-names",
        NEITHER,
        "with ``room_match`` ``prefix`` a room's name of 64 kB is banned, and kept for years",
        "1,024 characters at most",
        "tests/test_bounds.py::BanNameTests::test_names_that_are_kept_for_years",
        (
            Edit(
                "odingw/rpc/client_api.py",
                "if params.ban_time and len(params.room_id) > LONGEST_BANNED:",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "customer-limit",
        NEITHER,
        "``maxPeers`` of 10^400 in a customer's document breaks ``/metrics`` for all",
        "a limit is 2^53 - 1 at most; else that customer is refused",
        "tests/test_bounds_numbers.py::LimitNumberTests"
        "::test_metrics_are_shown_whatever_customers_there_are",
        (Edit("odingw/customers/directory.py", "    if value > _LARGEST:\n", "    if False:\n"),),
    ),
    Weakness(
        "customer-number",
        NEITHER,
        "one number that no computer holds refuses a whole list of customers",
        "it refuses its customer",
        "tests/test_bounds_numbers.py::LimitNumberTests::test_a_file",
        (
            Edit(
                "odingw/documents.py",
                "    except ValidationError:\n        # No types",
                "    except UnicodeError:\n        # No types",
            ),
        ),
    ),
    Weakness(
        "customer-names",
        NEITHER,
        "a customer's id, namespace or key id is of any length, or no text that can be written",
        "256 characters at most, none of them half of a surrogate pair",
        "tests/test_bounds_numbers.py::CustomerNameTests::test_names_that_are_too_long_or_no_text",
        (
            Edit(
                "odingw/customers/directory.py",
                "    if len(name) > LONGEST_NAME:\n",
                "    if False:\n",
            ),
        ),
    ),
    Weakness(
        "customer-problems",
        NEITHER,
        "a list of nothing but mistakes, in millions, is kept as as many lines",
        "1,000 lines, and the number of the others",
        "tests/test_bounds_numbers.py::CustomerNameTests"
        "::test_problems_are_counted_when_there_are_many",
        (
            Edit(
                "odingw/customers/directory.py",
                "        if len(self._kept) < MOST_PROBLEMS:\n",
                "        if True:\n",
            ),
        ),
    ),
    Weakness(
        "rsa-exponents",
        NEITHER,
        "RSA keys with exponents of 64 bits take four times as long to verify with",
        "32 bits at most; other keys are skipped and named",
        "tests/test_bounds_keys.py::SignatureWorkTests::test_exponents_and_sizes",
        (
            Edit(
                "odingw/turn/keys.py",
                "    if exponent.bit_length() > _MAX_EXPONENT_BITS:\n",
                "    if False:\n",
            ),
        ),
    ),
    Weakness(
        "signature-work",
        NEITHER,
        "a token that names no key is tried with dozens of the slowest ones: 52 ms",
        "as many as take 5 ms together",
        "tests/test_bounds_keys.py::SignatureWorkTests"
        "::test_the_work_for_a_token_that_names_no_key",
        (Edit("odingw/turn/auth.py", "        if left < 0:\n", "        if False:\n"),),
    ),
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
    Weakness(
        "journal-lost",
        NEITHER,
        "a journal that is deleted or replaced is written to on and on, and gone at the next start",
        "looked for at each group and each second; all that is known goes to a new file",
        "tests/test_local_lost.py::LostTests::test_deleted",
        (Edit("odingw/state/journal_file.py", "if fate := watch.lost():", "if fate := False:"),),
    ),
    Weakness(
        "journal-of-another",
        NEITHER,
        "two gateways that each find the other's journal in the place of their own move it away",
        "what another process has locked stays where it is",
        "tests/test_local_lost.py::LostTests::test_file_of_another_gateway_is_left_alone",
        (
            Edit(
                "odingw/state/journal_file.py",
                "for watch in self._watches[:1]) and is_used(self.path):",
                "for watch in self._watches[:1]) and False:",
            ),
        ),
    ),
    Weakness(
        "sync-per-piece",
        NEITHER,
        "large reports make the journal sync many times for a group, which new rooms wait for",
        "a group is one transaction, and that one sync",
        "tests/test_local_file.py::SyncTests::test_one_transaction_a_group",
        (
            Edit(
                "odingw/state/journal_file.py",
                "if connection.in_transaction and not more:",
                "if connection.in_transaction:",
            ),
        ),
    ),
    Weakness(
        "restore-in-use",
        NEITHER,
        "a backup that is put in the place of a journal in use is lost, or takes the journal along",
        "refused while a process has it locked",
        "tests/test_backup.py::ProcessTests::test_backup_under_load_and_restore",
        (
            Edit(
                "odingw/state/backup.py",
                "if journal.exists() and is_used(journal):",
                "if False:",
            ),
        ),
    ),
    Weakness(
        "started-not-serving",
        NEITHER,
        "a gateway that starts gets its share of a port's connections before it knows the state",
        "its port is taken at the start, and listens when the store is ready",
        "tests/test_start_serving.py::StartTests"
        "::test_the_public_port_opens_when_the_state_is_there",
        (Edit("odingw/ports.py", "elif entry.listener.tcp is not None:", "elif False:"),),
    ),
    Weakness(
        "grid-config-keys",
        NEITHER,
        "a configuration of many short keys costs 0.5 to 2.5 s of ``sfu.GridConfig``",
        "5000 names, values and brackets at most",
        "tests/test_grid_config.py::RefusedTests::test_many_short_keys",
        (
            Edit(
                "odingw/rpc/toml_outline.py",
                "        if count > MOST_TOKENS:\n",
                "        if False:\n",
            ),
        ),
    ),
    Weakness(
        "file-size",
        NEITHER,
        "a file without an end, such as ``/dev/zero``, takes all memory",
        "16 MiB at most",
        "tests/test_files.py::ReadTests::test_how_large_it_may_be",
        (
            Edit(
                "odingw/files.py",
                "    while len(data) <= max_bytes:\n",
                "    while len(data) <= 2**26:\n",
            ),
        ),
    ),
)
