"""The files under ``/clients/``: what they are, that they never change, how they are served."""

import configparser
import hashlib
import http.client
import json
import re
import shutil
import subprocess
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Final
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from odingw.web.clients import LATEST, NEWEST_SCRIPT, VERSIONS, ClientFiles
from tests.turn_page import SiteCase, in_thread

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "odingw" / "turn" / "clients"

PUBLISHED: Final = {
    "turnRestClient-1.1.0.js": "e7d5b07cc759de5b4503e9588d4f1b965529f636db52469421a4eefe384d9384",
    "turnRestClient-1.2.0.js": "8c60cd2dc59b9f4cb99852961187851433ab9e264011b9b641754191db97eb29",
    "turnRestClient-1.3.0.js": "d7131393a26adc63f639678c35b27c7c763dba1c37f08e7e0dd63e075d15c466",
    "turnRestClient-2.0.0.js": "cc6a3518f615c13cba2dd9ab53cc694f8ebeff1b99c77308ad8ecbc79a56901c",
    "turnRestClient-2.0.0.d.ts": "16f88bde552ccd52e4e0050a9e00ae9ea754e05e4b911c737ab0d27d4b5f6c21",
    "turnRestClient-2.1.0.js": "2e2d965ebd1791af9c7a2acb8504dfb66cddf79c086e3f1e8f9ac203911d4e50",
    "turnRestClient-2.1.0.d.ts": "881045019ac354de87d2d1e750308ef1efdc7831ff636b9e237414e5d4f444ae",
}
"""SHA-256 of what was published. Browsers keep it for a year: a change needs a new version."""

NEWER_THAN_ES5: Final = (
    "const a = 1;",
    "let a = 1;",
    "(() => 1)();",
    "`text`;",
    "async function f() {}",
    "class A {}",
    "(function (a = 1) {})();",
    "var { a } = {};",
    "var a = 1, b = { a };",
    "var b = { f() {} };",
    "(function (...a) {})();",
    "for (var a of []) {}",
    "2 ** 2;",
    "isNaN(1,);",
    "try {} catch {}",
    "1_000;",
)


class PublishedTests(SynchronousTestCase):
    def test_what_is_published_never_changes(self) -> None:
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.iterdir()
        }
        self.assertEqual(PUBLISHED, found)
        self.assertEqual(sorted(PUBLISHED), sorted(VERSIONS))

    def test_they_are_part_of_the_package(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        listed = re.split(r"[\s,]+", setup["options.package_data"]["odingw.turn"])
        packed = {path for pattern in listed for path in FOLDER.parent.glob(pattern)}
        self.assertEqual(set(FOLDER.iterdir()), packed)

    def test_every_version_names_itself(self) -> None:
        for name in VERSIONS:
            version = re.findall(r"\d+\.\d+\.\d+", name)
            first_lines = (FOLDER / name).read_text()[:100]
            self.assertEqual(version, re.findall(r"turnRestClient (\S+):", first_lines), name)

    def test_the_types_name_what_the_module_exports(self) -> None:
        exported = re.compile(
            r"^export (?:async )?(?:function (\w+)|\{ \w+ as (\w+) \})", re.MULTILINE
        )
        module, types = (
            exported.findall((FOLDER / f"turnRestClient-2.1.0.{ending}").read_text())
            for ending in ("js", "d.ts")
        )
        self.assertEqual(3, len(module))
        self.assertEqual(module, types)

    def test_old_browsers_can_read_the_newest_script(self) -> None:
        """MuJS knows ECMAScript 5 and nothing newer."""
        program = shutil.which("mujs")
        if program is None:
            raise SkipTest("mujs is not installed (package mujs)")

        def reads(script: str) -> bool:
            with tempfile.NamedTemporaryFile("w", suffix=".js") as file:
                file.write(script)
                file.flush()
                done = subprocess.run([program, "-s", file.name], capture_output=True)
                return done.returncode == 0

        self.assertTrue(reads((FOLDER / NEWEST_SCRIPT).read_text()))
        for line in NEWER_THAN_ES5:
            self.assertFalse(reads(line), f"the check passes {line}")


class ServingTests(SiteCase):
    def setUp(self) -> None:
        self.counted: list[str] = []
        self.port = self.serve(ClientFiles(self.counted.append).add_to)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(self.connection.close)

    def request(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a request; all go over one connection, so that a wrong length is noticed."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, headers=named)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()

    def check_headers(self, headers: http.client.HTTPMessage, content_type: str) -> None:
        for name, expected in (
            ("Content-Type", content_type),
            ("Access-Control-Allow-Origin", "*"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.assertEqual([expected], headers.get_all(name), name)

    @in_thread
    def test_files(self) -> None:
        for name in (*VERSIONS, LATEST):
            status, headers, body = self.request(f"/clients/{name}")
            self.assertEqual(200, status, name)
            written = (FOLDER / (NEWEST_SCRIPT if name == LATEST else name)).read_bytes()
            self.assertEqual(written, body, name)
            kind = "text/javascript" if name.endswith(".js") else "text/plain"
            self.check_headers(headers, f"{kind}; charset=utf-8")
            forever, short = "public, max-age=31536000, immutable", "public, max-age=300"
            kept = short if name == LATEST else forever
            self.assertEqual([kept], headers.get_all("Cache-Control"), name)
        self.assertEqual([*VERSIONS, LATEST], self.counted)

    @in_thread
    def test_head(self) -> None:
        for path in (f"/clients/{VERSIONS[0]}", "/clients/"):
            status, headers, body = self.request(path, "HEAD")
            _, of_get, _ = self.request(path)
            self.assertEqual((200, b""), (status, body))
            for both in (headers, of_get):
                del both["Date"]
            self.assertEqual(of_get.items(), headers.items())

    @in_thread
    def test_what_is_known_is_not_sent_again(self) -> None:
        for path in (f"/clients/{VERSIONS[0]}", f"/clients/{LATEST}", "/clients/"):
            _, first, whole = self.request(path)
            tag = first["ETag"]
            for known in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag}', "*"):
                for method in ("GET", "HEAD"):
                    status, headers, body = self.request(path, method, If_None_Match=known)
                    self.assertEqual((304, b""), (status, body), known)
                    for name in ("ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin"):
                        self.assertEqual(first[name], headers[name], name)
                    self.assertNotIn("Content-Length", headers)
                    self.assertNotIn("Content-Type", headers)
            for other in ('"other"', tag.strip('"'), f'"{tag}"', '"*"', "", f'"x{tag[1:]}'):
                status, _, body = self.request(path, If_None_Match=other)
                self.assertEqual((200, whole), (status, body), other)

    @in_thread
    def test_every_document_has_its_own_tag(self) -> None:
        paths = [f"/clients/{name}" for name in VERSIONS]
        tags = {self.request(path)[1]["ETag"] for path in paths}
        tags.add(self.request("/clients/")[1]["ETag"])
        tags.add(self.request("/clients/", Accept="application/json")[1]["ETag"])
        self.assertEqual(len(VERSIONS) + 2, len(tags))

    @in_thread
    def test_the_list_for_people(self) -> None:
        browser = "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"
        for accept in ({}, {"Accept": "*/*"}, {"Accept": browser}):
            status, headers, body = self.request("/clients/", **accept)
            self.assertEqual(200, status)
            self.check_headers(headers, "text/html; charset=utf-8")
            self.assertEqual("Accept", headers["Vary"])
            self.assertEqual("public, max-age=300", headers["Cache-Control"])
            links = set(re.findall(r'href="([^"]+)"', body.decode()))
            self.assertEqual({*VERSIONS, LATEST}, links)
        self.assertEqual(["index"] * 3, self.counted)

    @in_thread
    def test_the_list_for_programs(self) -> None:
        status, headers, body = self.request("/clients/", Accept="application/json")
        self.assertEqual(200, status)
        self.check_headers(headers, "application/json")
        self.assertEqual("Accept", headers["Vary"])
        listed = json.loads(body)
        self.assertEqual({"latest", "files"}, listed.keys())
        self.assertEqual("turnRestClient-1.3.0.js", listed["latest"])
        expected = []
        for name in VERSIONS:
            written = (FOLDER / name).read_bytes()
            digest = b64encode(hashlib.sha384(written).digest()).decode()
            expected.append({"name": name, "bytes": len(written), "integrity": f"sha384-{digest}"})
        self.assertEqual(expected, listed["files"])

    @in_thread
    def test_nothing_else_is_served(self) -> None:
        for path in (
            "/clients",
            "/clients/turnRestClient-3.0.0.js",
            "/clients/TURNRESTCLIENT-1.1.0.JS",
            f"/clients/{VERSIONS[0]}/",
            f"/clients//{VERSIONS[0]}",
            "/clients/../settings.py",
            "/clients/..%2fsettings.py",
            "/clients/%2e%2e/settings.py",
            "/clients/..\\settings.py",
            f"/clients/{VERSIONS[0]}%00",
            "/clients/%2fetc%2fpasswd",
            "/clients//etc/passwd",
        ):
            status, headers, body = self.request(path)
            self.assertEqual((404, -32004), (status, json.loads(body)["error"]["code"]), path)
            self.assertEqual("*", headers["Access-Control-Allow-Origin"])
        self.assertEqual([], self.counted)

    @in_thread
    def test_other_methods(self) -> None:
        for path in (f"/clients/{VERSIONS[0]}", f"/clients/{LATEST}", "/clients/"):
            status, headers, body = self.request(path, "POST")
            self.assertEqual((405, -32005), (status, json.loads(body)["error"]["code"]), path)
            self.assertEqual("GET", headers["Allow"])
