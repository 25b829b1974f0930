"""TURN and STUN URIs: the forms of RFC 7065 and RFC 7064, completed, and what is refused."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odingw.turn.uris import Scheme, TurnUri, parse_uri

LONG_LABEL = "a" * 63


class GoodTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Scheme, host, port and transport, with the defaults of the scheme."""
        for text, expected in (
            ("turn:example.org", ("turn", "example.org", 3478, "udp")),
            ("turns:example.org", ("turns", "example.org", 5349, "tcp")),
            ("turn:example.org:8000", ("turn", "example.org", 8000, "udp")),
            ("turns:example.org:443", ("turns", "example.org", 443, "tcp")),
            ("turn:example.org?transport=udp", ("turn", "example.org", 3478, "udp")),
            ("turn:example.org?transport=tcp", ("turn", "example.org", 3478, "tcp")),
            ("turns:example.org?transport=tcp", ("turns", "example.org", 5349, "tcp")),
            ("turns:example.org?transport=udp", ("turns", "example.org", 5349, "udp")),
            ("turn:example.org:1?transport=tcp", ("turn", "example.org", 1, "tcp")),
            ("turn:192.0.2.1:65535", ("turn", "192.0.2.1", 65535, "udp")),
            ("turn:[2001:db8::1]", ("turn", "2001:db8::1", 3478, "udp")),
            ("turns:[::1]:443?transport=tcp", ("turns", "::1", 443, "tcp")),
            ("turn:[::ffff:192.0.2.1]:80", ("turn", "::ffff:192.0.2.1", 80, "udp")),
            ("stun:example.org", ("stun", "example.org", 3478, "udp")),
            ("stuns:example.org", ("stuns", "example.org", 5349, "tcp")),
            ("stun:[::1]:8000", ("stun", "::1", 8000, "udp")),
            ("turn:localhost", ("turn", "localhost", 3478, "udp")),
            ("turn:my_host.example.org.", ("turn", "my_host.example.org.", 3478, "udp")),
            (f"turn:{LONG_LABEL}.org", ("turn", f"{LONG_LABEL}.org", 3478, "udp")),
            ("turn:4.example", ("turn", "4.example", 3478, "udp")),
        ):
            uri = parse_uri(text, "turn")
            self.assertEqual(uri, TurnUri(*expected, text), text)  # type: ignore[arg-type]  # a table

    def test_normal_form(self) -> None:
        """The scheme is added, scheme and transport are lower case, the rest is as written."""
        cases: tuple[tuple[str, Scheme, str], ...] = (
            ("turn.testserver.com", "turn", "turn:turn.testserver.com"),
            ("turn.testserver.com:3478", "turn", "turn:turn.testserver.com:3478"),
            ("turn.testserver.com?transport=tcp", "turn", "turn:turn.testserver.com?transport=tcp"),
            ("localhost:80?transport=udp", "turn", "turn:localhost:80?transport=udp"),
            ("192.0.2.1", "turn", "turn:192.0.2.1"),
            ("192.0.2.1:80", "stun", "stun:192.0.2.1:80"),
            ("[2001:db8::1]", "turn", "turn:[2001:db8::1]"),
            ("[2001:db8::1]:80", "stun", "stun:[2001:db8::1]:80"),
            ("turn", "turn", "turn:turn"),
            ("stun.example.org", "stun", "stun:stun.example.org"),
            ("TURNS:Example.ORG:0443?transport=TCP", "turn", "turns:Example.ORG:443?transport=tcp"),
            ("stun:example.org", "turn", "stun:example.org"),
        )
        for text, default, expected in cases:
            self.assertEqual(parse_uri(text, default).text, expected)


class WrongTests(SynchronousTestCase):
    def refusal(self, text: str) -> str:
        line = str(self.assertRaises(ValueError, parse_uri, text, "turn"))
        self.assertTrue(line.isprintable(), f"not one clean line: {line!r}")
        return line

    def test_named_with_remedy(self) -> None:
        """The line shows the URI and says what to write."""
        for text, remedy in (
            ("", "it names no host"),
            ("turn:", "it names no host"),
            ("turn::3478", "it names no host"),
            ("turn:?transport=udp", "it names no host"),
            ("turn://example.org", "write 'turn:example.org'"),
            ("turns://example.org:443", "write 'turns:example.org:443'"),
            ("//example.org", "write 'turn:example.org'"),
            ("https://example.org", 'unknown scheme; write "turn:" and the host'),
            ("udp:example.org", "unknown scheme"),
            ("turn:2001:db8::1", 'needs brackets; write "turn:[address]:port"'),
            ("turns:::1", 'needs brackets; write "turns:[address]:port"'),
            ("2001:db8::1", "needs brackets"),
            ("fe80::1", "needs brackets"),
            ("turn:[example.org]", "no IPv6 address"),
            ("turn:[]", "no IPv6 address"),
            ("turn:[fe80::1%eth0]", "no IPv6 address"),
            ("turn:[v1.x]", "no IPv6 address"),
            ("turn:[::1", 'write it as "turn:host:port"'),
            ("turn:[::1]x", 'write it as "turn:host:port"'),
            ("turn:a:1:2", 'write it as "turn:host:port"'),
            ("turn:example.org:", "the port is not a number from 1 to 65535"),
            ("turn:example.org:0", "the port is not"),
            ("turn:example.org:65536", "the port is not"),
            ("turn:example.org:+1", "the port is not"),
            ("turn:example.org:１", "the port is not"),  # noqa: RUF001 - a digit that int() takes
            ("example.org:99999", "the port is not"),
            ("turn:example.org/", "neither a name nor an address"),
            ("turn:example.org#x", "neither a name nor an address"),
            (" turn:example.org", "neither a name nor an address"),
            ("turn:example.org ", "neither a name nor an address"),
            ("turn:a..b", "neither a name nor an address"),
            ("turn:-a.org", "neither a name nor an address"),
            ("turn:.", "neither a name nor an address"),
            (f"turn:{LONG_LABEL}a.org", "neither a name nor an address"),
            (f"turn:{'.'.join(['a' * 50] * 6)}", "neither a name nor an address"),
            ("turn:a\nb", "neither a name nor an address"),
            ("turn:bücher.example", 'write it in its "xn--" form'),
            ("turn:192.0.2.256", "not an IPv4 address, nor a name"),
            ("turn:192.0.2", "not an IPv4 address, nor a name"),
            ("turn:3478", "not an IPv4 address, nor a name"),
            ("turn:example.org?", 'nothing but "?transport=udp" or "?transport=tcp"'),
            ("turn:example.org?transport=", 'nothing but "?transport=udp"'),
            ("turn:example.org?transport=sctp", 'nothing but "?transport=udp"'),
            ("turn:example.org?transport=tcp&x=1", 'nothing but "?transport=udp"'),
            ("turn:example.org?ttl=1", 'nothing but "?transport=udp"'),
            ("stun:example.org?transport=udp", "ends with host or port"),
            ("stuns:example.org?", "ends with host or port"),
        ):
            line = self.refusal(text)
            self.assertIn(remedy, line, text)
            self.assertTrue(line.startswith(repr(text)[:60].rstrip("'")), line)

    def test_user_is_not_repeated(self) -> None:
        """A password may stand beside the user, and messages go to logs."""
        for text in ("turn:me:hunter2@example.org", "me:hunter2@example.org", "hunter2@[::1]"):
            line = self.refusal(text)
            self.assertNotIn("hunter2", line)
            self.assertIn('write "turn:" and the host alone', line)

    def test_long_ones_are_cut(self) -> None:
        """A line of the log stays readable."""
        self.assertLess(len(self.refusal("turn:" + "//" * 5000)), 300)

    @settings(deadline=None)
    @given(st.text(max_size=40) | st.text("turns:/[]?=.1a@-", max_size=20))
    @example("turn:[::1]:1?transport=tcp")
    def test_anything(self, text: str) -> None:
        """Whatever is written, it has a normal form that stays as it is, or one line comes out."""
        try:
            uri = parse_uri(text, "stun")
        except ValueError as error:
            self.assertTrue(str(error).isprintable(), f"not one clean line: {error}")
        else:
            self.assertEqual(parse_uri(uri.text, "turn"), uri)
