"""What stands where a public key is wanted is called what it is, with a command that makes one."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from odingw.customers import directory
from odingw.errors import ConfigError, KeyMaterialError
from odingw.tokens import load_public_jwk
from odingw.tokens.other_forms import AS_DER, AS_X, pem_or_der
from odingw.turn.keys import jwk_set, static_key
from odingw.turn.settings import from_turnrest_json
from tests.document_places import ACCESS_KEY, JWK, TURN, customer
from tests.jwk_server import document, private_key, public_jwk, spki, spki_text

KINDS: Final = ("RSA", "P-256", "Ed25519")
PRIVATE: Final = "a private key, which must stay with whoever signs"
SSH: Final = "a public key in the form of SSH"


class Form(NamedTuple):
    """A key in another form.

    Attributes:
        kind: its type.
        text: the text.
        what: what it is called.
        makes: whether there is a command that makes the public key of the text.
    """

    kind: str
    text: str
    what: str
    makes: bool = True


def _key(kind: str, form: PrivateFormat, encoding: Encoding = Encoding.PEM) -> bytes:
    data: bytes = private_key(kind, 0).private_bytes(encoding, form, NoEncryption())
    return data


def _public(kind: str, encoding: Encoding, form: PublicFormat) -> bytes:
    data: bytes = private_key(kind, 0).public_key().public_bytes(encoding, form)
    return data


def _certificate(kind: str) -> x509.Certificate:
    key, name = private_key(kind, 0), x509.Name([])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    ).sign(key, None if kind == "Ed25519" else SHA256())


def _request(kind: str) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(private_key(kind, 0), None if kind == "Ed25519" else SHA256())


def _base64s(data: bytes) -> tuple[str, str, str]:
    """Base64 as openssl breaks it into lines, without padding, and base64url."""
    text = b64encode(data).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return lines, text.rstrip("="), urlsafe_b64encode(data).decode()


def _private_forms(kind: str) -> Iterator[Form]:
    yield Form(kind, _key(kind, PrivateFormat.PKCS8).decode(), PRIVATE)
    if kind != "Ed25519":
        yield Form(kind, _key(kind, PrivateFormat.TraditionalOpenSSL).decode(), PRIVATE)
    yield Form(kind, _key(kind, PrivateFormat.OpenSSH).decode(), PRIVATE, makes=False)
    locked = private_key(kind, 0).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    yield Form(kind, locked.decode(), PRIVATE, makes=False)
    for text in _base64s(_key(kind, PrivateFormat.PKCS8, Encoding.DER)):
        yield Form(kind, text, PRIVATE)
    algorithm: Any = {"RSA": RSAAlgorithm, "Ed25519": OKPAlgorithm}.get(kind, ECAlgorithm)
    yield Form(kind, json.dumps(algorithm.to_jwk(private_key(kind, 0), as_dict=True)), PRIVATE)


def _public_forms(kind: str) -> Iterator[Form]:
    pem = _public(kind, Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield Form(kind, pem.decode(), "a public key as PEM text")
    yield Form(kind, pem.decode().replace("\n", "\r\n"), "a public key as PEM text")
    yield Form(kind, b64encode(pem).decode(), "base64 of PEM text: of a public key")
    yield Form(kind, "\ufeff" + pem.decode(), "a public key as PEM text", makes=False)
    if kind == "RSA":
        pkcs1 = _public(kind, Encoding.PEM, PublicFormat.PKCS1).decode()
        yield Form(kind, pkcs1, "an RSA public key in the form of PKCS #1")
    ssh = _public(kind, Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    yield Form(kind, f"{ssh} ann@example", SSH)
    blob = ssh.split()[1]
    yield Form(kind, blob, f"base64 of {SSH}")
    body = "\n".join(blob[start : start + 70] for start in range(0, len(blob), 70))
    ssh2 = f'Comment: "of \\\nann"\n{body}'
    ssh2 = f"---- BEGIN SSH2 PUBLIC KEY ----\n{ssh2}\n---- END SSH2 PUBLIC KEY ----\n"
    yield Form(kind, ssh2, "a public key in the form of SSH2 (RFC 4716)")
    yield Form(kind, json.dumps(public_jwk(kind), indent=1), "a JWK as JSON text")
    text = json.dumps({"keys": [public_jwk(kind)]})
    yield Form(kind, text, "a JWK set", makes=False)


def _signed_forms(kind: str) -> Iterator[Form]:
    for name, signed in (("", _certificate(kind)), (" request", _request(kind))):
        pem = signed.public_bytes(Encoding.PEM).decode()
        yield Form(kind, pem, f"a certificate{name}")
        yield Form(kind, b64encode(pem.encode()).decode(), "base64 of PEM text: of a certif")
        for text in _base64s(signed.public_bytes(Encoding.DER)):
            yield Form(kind, text, f"a certificate{name}")
    certificate = _certificate(kind)
    pkcs7 = serialize_certificates([certificate], Encoding.PEM).decode()
    yield Form(kind, pkcs7, "a certificate in the form of PKCS #7")
    both = certificate.public_bytes(Encoding.PEM) + _key(kind, PrivateFormat.PKCS8)
    yield Form(kind, both.decode(), PRIVATE)


def forms() -> Iterator[Form]:
    """Yield keys in forms that are wanted nowhere."""
    for kind in KINDS:
        yield from _private_forms(kind)
        yield from _public_forms(kind)
        yield from _signed_forms(kind)
    yield Form("Ed25519", ACCESS_KEY, "an access key, which is a secret", makes=False)
    raw = _public("Ed25519", Encoding.Raw, PublicFormat.Raw)
    yield Form("Ed25519", raw.hex(), "32 bytes in hex")
    yield Form("Ed25519", raw.hex().upper(), "32 bytes in hex")


FORMS: Final = tuple(forms())


def part_of(text: str) -> str:
    """A part of a text that no message may repeat."""
    words: list[str] = re.findall("[A-Za-z0-9+/_-]+", text)
    return max(words, key=len)[:20]


class NameTests(SynchronousTestCase):
    def test_configured_public_keys(self) -> None:
        for form in FORMS:
            error = str(self.assertRaises(KeyMaterialError, static_key, form.text, ""))
            self.assertIn(f"not {form.what}", error)
            self.assertNotIn(part_of(form.text), error)
            text = json.dumps(TURN | {"jwtPublicKeys": [form.text]}).encode()
            error = str(self.assertRaises(ConfigError, from_turnrest_json, text, "t.json"))
            self.assertIn("jwtPublicKeys[0]: base64", error)
            self.assertIn(f"not {form.what}", error)

    def test_keys_of_customers(self) -> None:
        for form in FORMS:
            for value in (form.text, {**JWK, "x": form.text}):
                [problem] = directory([customer(accessKeys=[{"publicKey": value}])]).problems
                self.assertIn(f"not {form.what}", problem)
                self.assertNotIn(part_of(form.text), problem)

    def test_a_bare_key(self) -> None:
        raw = _public("Ed25519", Encoding.Raw, PublicFormat.Raw)
        for text, name in (
            (b64encode(raw).decode(), "base64"),
            (urlsafe_b64encode(bytes([0xFB]) * 32).decode(), "base64url"),
        ):
            error = str(self.assertRaises(KeyMaterialError, static_key, text, ""))
            self.assertRegex(error, f"not 32 bytes in {name}, as of an Ed25519 key")
        x = b64encode(bytes([0xFB]) * 32).decode()
        error = str(self.assertRaises(KeyMaterialError, load_public_jwk, {**JWK, "x": x}))
        self.assertIn("not 32 bytes in base64, as of an Ed25519 key", error)

    def test_a_public_key_in_der(self) -> None:
        x = spki_text("Ed25519")
        error = self.assertRaises(KeyMaterialError, load_public_jwk, {**JWK, "x": x})
        self.assertIn("not a public key in DER (SubjectPublicKeyInfo) as base64", str(error))
        error = self.assertRaises(KeyMaterialError, static_key, "-" + x, "")
        self.assertEqual("base64 expected, of a public key in DER", str(error))

    def test_a_url(self) -> None:
        error = str(self.assertRaises(KeyMaterialError, static_key, "https://a.example/jwks", ""))
        self.assertIn("not a URL; that of a JWK set belongs among those of JWK sets", error)

    def test_key_pairs_of_putty(self) -> None:
        text = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"
        error = str(self.assertRaises(KeyMaterialError, static_key, text, ""))
        self.assertIn(f"not {PRIVATE}", error)

    def test_a_path(self) -> None:
        for text in ("jwks.json", "/etc/keys/acme.pem", "./a.pub", "file:///jwks.json"):
            self.assertIn("the path of a file; ", pem_or_der(text, AS_DER), text)

    def test_what_is_nothing_known(self) -> None:
        for text in ("", "x", "{", "{}", '{"kty"', "[]", "null", "A" * 40, "ssh-", "a.example"):
            self.assertEqual("", pem_or_der(text, AS_DER), text)
        for kind in ("PGP PUBLIC KEY BLOCK", "DH PARAMETERS"):
            self.assertIn("of no public key", pem_or_der(f"-----BEGIN {kind}-----\n", AS_X))

    def test_sets(self) -> None:
        pem = _certificate("RSA").public_bytes(Encoding.PEM).decode()
        for body in (pem.encode(), json.dumps({"some id": pem, "other": pem}).encode()):
            error = self.assertRaises(KeyMaterialError, jwk_set, body, "a set")
            self.assertIn("a list of keys, but a certificate", str(error))
        found = jwk_set(document([public_jwk("RSA", n=pem)]), "a set")
        self.assertIn("not a certificate", found.problems[0])


class CommandTests(SynchronousTestCase):
    """What is in the message makes the key that is wanted."""

    def setUp(self) -> None:
        for program in ("openssl", "ssh-keygen", "basenc"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def made(self, form: Form, ending: str, file: str = "") -> str:
        """Run the command on a file, which holds the text itself; return what it prints."""
        said = pem_or_der(form.text, ending)
        command = said.partition(" with: ")[2]
        self.assertTrue(command, said)
        (self.folder / "FILE").write_text(file or form.text)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        run = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, run.returncode, f"{command}\n{run.stderr}")
        return run.stdout.strip()

    def test_public_keys(self) -> None:
        for form in FORMS:
            if form.makes:
                self.assertEqual(self.made(form, AS_DER), spki_text(form.kind), form.what)

    def test_an_x(self) -> None:
        for form in FORMS:
            if form.kind == "Ed25519" and form.makes and not form.text.startswith("{"):
                x = self.made(form, AS_X).rstrip("=")
                self.assertEqual(x, public_jwk("Ed25519")["x"], form.what)

    def test_what_was_copied_out_of_a_pem_file(self) -> None:
        """The base64 alone is written, and at hand is the file."""
        pem = _certificate("RSA").public_bytes(Encoding.PEM).decode()
        body = pem.partition("\n")[2].partition("---")[0]
        for text in (body, "".join(body.split())):
            self.assertEqual(self.made(Form("RSA", text, ""), AS_DER, pem), spki_text("RSA"))

    def test_keys_that_are_good_elsewhere(self) -> None:
        for text in (spki_text("Ed25519"), spki_text("Ed25519").rstrip("=")):
            x = self.made(Form("Ed25519", text, ""), AS_X).rstrip("=")
            self.assertEqual(x, public_jwk("Ed25519")["x"])
        bare = public_jwk("Ed25519")["x"]
        for text in (bare, b64encode(b64decode(bare + "=", "-_")).decode()):
            made = self.made(Form("Ed25519", text, ""), AS_DER)
            self.assertEqual(made, spki_text("Ed25519"))
        in_url = urlsafe_b64encode(spki(private_key("RSA", 0))).decode()
        self.assertEqual(self.made(Form("RSA", in_url, ""), AS_DER), spki_text("RSA"))
