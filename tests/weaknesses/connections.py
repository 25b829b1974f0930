"""What strangers may do with connections and HTTP."""

from typing import Final

from tests.weaknesses.rows import NEITHER, Edit, Weakness

CONNECTIONS: Final[tuple[Weakness, ...]] = (
    Weakness(
        "pipelined-unsent",
        NEITHER,
        "peers that pipeline and read slowly fill the memory with replies",
        "the next request is begun when the kernel has the whole reply to the one before",
        "tests/test_connections.py::BackPressureTests::test_pipelines_of_every_kind",
        (Edit("odingw/web/channel.py", "if not is_sent(self.transport):", "if False:"),),
    ),
    Weakness(
        "pipelined-unread",
        NEITHER,
        "requests that wait for their turn are read on and on",
        "nothing is read while something waits",
        "tests/test_connections.py::BackPressureTests::test_one_request_at_a_time_is_in_work",
        (
            Edit(
                "odingw/web/channel.py", "if (waiting > 0 and stuck) is self._reading:", "if False:"
            ),
        ),
    ),
    Weakness(
        "half-sent",
        NEITHER,
        "requests that are not complete fill the memory, each within its own limit",
        "all together are bounded; the one that has waited longest is refused (503)",
        "tests/test_connections.py::HeldTests::test_the_oldest_goes_first",
        (
            Edit(
                "odingw/web/site.py",
                "while self._held > self.limits.unfinished_bytes:",
                "while False:",
            ),
        ),
    ),
    Weakness(
        "trailers",
        NEITHER,
        "trailers of a chunked body may be four times as long as headers",
        "bounded as headers are",
        "tests/test_connections.py::HeldTests::test_trailers_are_bounded_as_headers_are",
        (
            Edit(
                "odingw/web/channel.py",
                "decoder._maxTrailerHeadersSize = self.totalHeadersSize",
                "pass",
            ),
        ),
    ),
    Weakness(
        "trailers-kept",
        NEITHER,
        "trailers that nobody asks for are kept, in twenty times their size",
        "they are thrown away",
        "tests/test_connections_process.py::SlowReaderTests::test_half_sent_requests",
        (Edit("odingw/web/channel.py", "decoder._trailerHeaders.clear()", "pass"),),
    ),
    Weakness(
        "proxy-header",
        NEITHER,
        "a PROXY header of 64 kB is taken and kept as long as the connection lives",
        "headers longer than proxies make them end the connection",
        "tests/test_connections.py::ProxyHeaderTests::test_version_2",
        (
            Edit(
                "odingw/web/endpoints.py",
                "        if size > _PROXY_2_FIXED + _PROXY_2_LONGEST:\n",
                "        if False:\n",
            ),
        ),
    ),
    Weakness(
        "encoded-path",
        NEITHER,
        "other spellings of a path (``/%69nternal``) pass a proxy's rules and reach the handlers",
        "a path with ``%``, or with empty segments, is 404",
        "tests/test_connections.py::TargetTests::test_other_spellings_are_other_paths",
        (Edit("odingw/web/app.py", "(?:/[A-Za-z0-9._", "(?:/[%A-Za-z0-9._"),),
    ),
    Weakness(
        "absolute-form",
        NEITHER,
        "``http://h?/internal`` counts as ``/internal``",
        "the authority of a URI ends at the query too",
        "tests/test_connections.py::TargetTests::test_absolute_form",
        (Edit("odingw/web/host.py", "://([^/?#]*)", "://([^/#]*)"),),
    ),
    Weakness(
        "host",
        NEITHER,
        "a request without Host, with two, or with ``evil@127.0.0.1`` is answered",
        "400 (RFC 9112, section 3.2)",
        "tests/test_connections.py::HostTests::test_its_value",
        (
            Edit(
                "odingw/web/host.py",
                'raise ValueError("the Host of the request is malformed")',
                "pass",
            ),
        ),
    ),
    Weakness(
        "head-logged",
        NEITHER,
        "HEAD on an odd path writes the whole request, its token too, into the log",
        "what is answered to HEAD is no concern of the log",
        "tests/test_connections.py::HeadTests::test_every_path_and_error",
        (
            Edit(
                "odingw/web/request.py",
                "        body = resource.render(self)\n",
                "        return super().render(resource)\n        body = b''\n",
            ),
        ),
    ),
    Weakness(
        "head-body",
        NEITHER,
        "an error ahead of the request's end answers HEAD with a body",
        "headers alone",
        "tests/test_connections.py::HeadTests::test_every_path_and_error",
        (Edit("odingw/web/replies.py", 'b"" if head else body', "body"),),
    ),
    Weakness(
        "log-line",
        NEITHER,
        "what strangers send makes log lines of any length",
        "a line is at most 2 kB; tracebacks are whole",
        "tests/test_log_bounds.py::BoundTests::test_a_line_has_an_end",
        (Edit("odingw/ops/logs.py", "if len(data) <= longest:", "if True:"),),
    ),
    Weakness(
        "log-query",
        NEITHER,
        "what libraries log may hold a query, and that a token",
        "queries are left out",
        "tests/test_log_bounds.py::BoundTests::test_no_query",
        (Edit("odingw/ops/logs.py", 'text = _QUERY.sub("?…", text)', "pass"),),
    ),
    Weakness(
        "renamed",
        NEITHER,
        "a release of Twisted that names its buffers otherwise makes lost replies count as arrived",
        "every private name is looked for at the start, which fails without it",
        "tests/test_twisted_private.py::CheckTests::test_each_that_is_gone_is_named",
        (Edit("odingw/web/twisted_private.py", "if not _has(found, each)", "if False"),),
    ),
    Weakness(
        "long-head",
        NEITHER,
        "a head that is longer than ``limits.header_bytes``, in one line or in many, is taken",
        "431, or 414 for a request line; what follows is not read as a request",
        "tests/test_http.py::LongTokenTests::test_one_long_line",
        (Edit("odingw/web/channel.py", "if sum(map(len, lines)) <= most:", "if lines:"),),
    ),
    Weakness(
        "long-token",
        NEITHER,
        "a token of any length is taken apart, as far as headers may be long",
        "one that is longer than ``limits.token`` is refused unread",
        "tests/test_http.py::LongTokenTests::test_one_long_line",
        (Edit("odingw/rpc/callers.py", "    if len(token) > most:", "    if False:"),),
    ),
    Weakness(
        "proxy-header-slow",
        NEITHER,
        "who sends half of a PROXY header keeps a connection for ever",
        "it is complete after ``header_timeout``, or the connection ends",
        "tests/test_proxy_lines.py::PieceTests::test_one_that_does_not_end_in_time",
        (
            Edit(
                "odingw/web/endpoints.py",
                "self.factory.header_timeout, self._abort",
                "self.factory.header_timeout, int",
            ),
        ),
    ),
    Weakness(
        "proxy-header-none",
        NEITHER,
        "what cannot become a PROXY header any more is kept, and waited for",
        "the first byte that does not fit ends the connection",
        "tests/test_proxy_lines.py::PieceTests::test_what_is_none_ends_at_once",
        (
            Edit(
                "odingw/web/endpoints.py",
                "    if not data.startswith(_PROXY_1[: len(data)]):\n        return 0\n",
                "    if not data.startswith(_PROXY_1[: len(data)]):\n        return None\n",
            ),
        ),
    ),
    Weakness(
        "server-address",
        NEITHER,
        "a server reports an address that is no host, and rooms are placed there",
        "names and IP addresses alone are hosts, without other spellings of an address",
        "tests/test_review_rpc.py::AddressTests::test_what_other_programs_read_otherwise",
        (Edit("odingw/rpc/server_api.py", "is_host(found[1]) and ", ""),),
    ),
)
