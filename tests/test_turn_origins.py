"""Origins in the form in which browsers send them, and what no browser sends."""

from twisted.trial.unittest import SynchronousTestCase

from odingw.turn.origins import check_origin


class OriginTests(SynchronousTestCase):
    def test_what_browsers_send(self) -> None:
        for text in (
            "https://a.example",
            "http://localhost",
            "http://localhost:3000",
            "http://a.example:443",
            "https://a.example:80",
            "https://127.0.0.1:8443",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
            "https://a_b.example",
            "https://a.example.",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
            "https://-a_.example",
            "https://0x7g.example",
            "http://[::ffff:7f00:1]",
            "app://.",
            "file://",
            "null",
        ):
            self.assertEqual(check_origin(text), text)
        self.assertEqual(check_origin("HTTPS://A.Example"), "https://a.example")

    def test_what_they_do_not(self) -> None:
        plain = "not a scheme, a host in ASCII, perhaps a port, and no more"
        for text, why in (
            ("", plain),
            ("a.example", plain),
            ("//a.example", plain),
            ("https://", plain),
            ("https://a.example/", plain),
            ("https://a.example/path", plain),
            ("https://a.example?x", plain),
            ("https://a.example#x", plain),
            ("https://user@a.example", plain),
            ("https://a.example, https://b.example", plain),
            ("https://a.example https://b.example", plain),
            ("https://a.example\r\nX: y", "it holds U+000D, which nobody sees"),
            ("https://a.\u200eexample", "it holds U+200E, which nobody sees"),
            (" https://a.example", plain),
            ("https://bücher.example", plain),
            ("https://a.example:", plain),
            ("https://a.example:x", plain),
            ("file:///", plain),
            ("wss://a.example", "no page has its scheme"),
            ("https://*.example", "browsers know no patterns, only whole origins"),
            ("*.example", "browsers know no patterns, only whole origins"),
            ("https://a.example:*", "browsers know no patterns, only whole origins"),
            ("https://a.example:0", "the port is not a number from 1 to 65535"),
            ("https://a.example:65536", "the port is not a number from 1 to 65535"),
            *(
                (f"https://{host}", "its host is no IP address, nor a name")
                for host in (
                    *("[::1::]", "[1.2.3.4]", "1.2.3.4.5", "256.256.256.256", "1.2.3.08"),
                    *("0x100000000", "a.0x1", "a.1", ".", "..", "a..b", ".a", "a..", "a" * 64),
                    ".".join(["a" * 50] * 6),
                )
            ),
        ):
            error = self.assertRaises(ValueError, check_origin, text)
            self.assertEqual(
                str(error), f'{why}; write an origin such as "https://app.example.com"', text
            )

    def test_what_they_write_otherwise(self) -> None:
        for text, sent in (
            ("https://a.example:443", "https://a.example"),
            ("HTTP://a.example:80", "http://a.example"),
            ("http://a.example:0080", "http://a.example"),
            ("http://a.example:08080", "http://a.example:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]:80", "http://[::ffff:7f00:1]"),
            ("http://0x7f000001", "http://127.0.0.1"),
            ("http://0X7F.1:8080", "http://127.0.0.1:8080"),
            ("http://2130706433", "http://127.0.0.1"),
            ("http://0177.0.0.1", "http://127.0.0.1"),
            ("http://127.1", "http://127.0.0.1"),
            ("http://127.0.0.1.", "http://127.0.0.1"),
        ):
            error = self.assertRaises(ValueError, check_origin, text)
            self.assertEqual(str(error), f'browsers call it otherwise; write "{sent}"')
            self.assertEqual(check_origin(sent), sent)
