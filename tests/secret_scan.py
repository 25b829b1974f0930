"""Finds keys in files: what must not be committed.

``python -m tests.secret_scan [FOLDER]`` looks through what git would commit there, or all files
where there is no git, and ends with status 1 if it found anything.
"""

import re
import subprocess
import sys
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent

ALLOWED: Final[dict[str, frozenset[str]]] = {
    "the existing gateway's sample, which everybody has; the gateway refuses it": frozenset(
        {
            "ab79b43c1bc2ca25",
        }
    ),
    "keys derived from that sample, as recorded": frozenset(
        {
            "f48334ff074e9647",
            "658edfe687ce5e2f",
            "dc2adaab982af688",
            "476d7eb32613c66b",
            "1323ed95f82efefb",
            "8bb8e0dc8f995ffb",
            "eecc2a69b2ccaf68",
            "37aeb0b54dc7cd37",
            "fe85536fe76a772e",
            "111e828b0351cc41",
            "050da45cd77dad0d",
            "ca956b7023471d30",
            "48d8c62c01a51d20",
        }
    ),
    "the access key of docs/tokens.rst, its parts, and one with a wrong letter": frozenset(
        {
            "ee76e39bc45ec193",
            "3b8778ef6a59652e",
            "2da7e607f18e4032",
        }
    ),
    "counted bytes, and words": frozenset(
        {
            "2dadd75e3daed987",
            "579ff855f6f65f37",
            "93ffe65ccb9e96b1",
            "2570199833438af0",
        }
    ),
}
"""Keys that may stand in files, by how the SHA-256 of their text begins; all must be there."""

_ALLOWED: Final = frozenset().union(*ALLOWED.values())

_SKIPPED: Final = frozenset(
    {".git", ".venv", "__pycache__", "build", "dist", "node_modules", "var"}
)
_CACHES: Final = re.compile(r"\.(\w+_cache|hypothesis)|_trial_temp.*|.*\.egg-info")

_NAMES: Final = re.compile(
    r".*(masterkey|master_key|master-key|\.sqlite\d*(-\w+)?|\.p12|\.pfx|\.jks|\.kdbx|\.keystore)|"
    r"id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.env|\.htpasswd|\.pgpass|\.pypirc",
    re.IGNORECASE,
)
"""Names of files that hold keys, whatever is in them."""

_PATTERNS: Final = {
    "a private key (PEM)": re.compile(
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n|\\r|[\"',:+A-Za-z0-9/=-])"
        r"*?[A-Za-z0-9+/]{40}"
    ),
    "an access key": re.compile(r"(?<![\w+/=-])(A[Q-Za-f][A-Za-z0-9+/_-]{42})(?![\w+/=-])"),
    "a private JWK": re.compile(
        r"\bd\\*[\"']?\s*[:=]\s*\\*[\"']([A-Za-z0-9_-]{40,}={0,2})\\*[\"']"
    ),
    "a symmetric JWK": re.compile(
        r"\boct\b.{0,200}\bk\\*[\"']?\s*[:=]\s*\\*[\"']([A-Za-z0-9_-]{16,})"
    ),
    "a line that is a key of 32 bytes": re.compile(
        r"^[ \t]*([A-Za-z0-9+/_-]{43}=?|[0-9A-Fa-f]{64})[ \t\r]*$", re.MULTILINE
    ),
    "a value of a key": re.compile(
        r"(?:master|secret|private|signing|api|access|shared)[ _-]?keys?\w*[\"']?\s*"
        r"(?::\s*[\w.\[\]]+\s*)?[:=]\s*\W{0,4}"
        r"([A-Za-z0-9+/_-]{22,}={0,2}|[0-9A-Fa-f]{32,})",
        re.IGNORECASE,
    ),
    "a token of a service": re.compile(
        r"\b(AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|"
        r"glpat-[\w-]{20}|xox[abprs]-[\w-]{20,}|AIza[\w-]{35}|pypi-AgE[\w-]{50,}|npm_[A-Za-z0-9]{36}|"
        r"sk_live_\w{20,}|SG\.[\w-]{20,}\.[\w-]{40,})"
    ),
    "an SQLite file": re.compile(r"\ASQLite format 3\0"),
}


class Finding(NamedTuple):
    """A key in a file."""

    file: str
    what: str
    text: str


def files(root: Path) -> list[Path]:
    """Return what git would commit in a folder; where there is no git, all but caches."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        names = [name.decode("utf-8", "surrogateescape") for name in listed.stdout.split(b"\0")]
        return [root / name for name in sorted(names) if name and (root / name).is_file()]
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and not any(
            part in _SKIPPED or _CACHES.fullmatch(part) for part in path.relative_to(root).parts
        )
    )


def scan(root: Path, allowed: frozenset[str] = _ALLOWED) -> Iterator[Finding]:
    """Yield the keys that stand in the files of a folder, but for those with an allowed digest."""
    for path in files(root):
        name = str(path.relative_to(root))
        if _NAMES.fullmatch(path.name):
            yield Finding(name, "a file for keys or state", path.name)
        yield from found_in(name, path.read_bytes().decode("utf-8", "replace"), allowed)


def found_in(name: str, text: str, allowed: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Yield the keys in a text."""
    for what, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            key = match[match.lastindex or 0]
            if _is_key(what, key) and digest(key) not in allowed:
                yield Finding(name, what, key)


def digest(key: str) -> str:
    """Return what ``ALLOWED`` knows a key by."""
    return sha256(key.encode()).hexdigest()[:16]


def _is_key(what: str, key: str) -> bool:
    if what == "an access key":
        return _bytes(key)[:1] == b"\x01"
    if what == "a value of a key":
        # Names and paths have fewer kinds of characters, or are short.
        kinds = sum(bool(re.search(kind, key)) for kind in ("[0-9]", "[A-Z]", "[a-z]"))
        return kinds >= (2 if len(key) >= 40 else 3) or bool(re.fullmatch("[0-9A-Fa-f]{32,}", key))
    if what == "a line that is a key of 32 bytes":
        # A row of dashes is none.
        return len(set(key)) > 9
    return True


def _bytes(key: str) -> bytes:
    padded = key + "=" * (-len(key) % 4)
    try:
        return urlsafe_b64decode(padded) if re.search("[_-]", key) else b64decode(padded)
    except ValueError:
        return b""


def main(arguments: Sequence[str]) -> int:
    """Scan a folder, by default the project's; return the exit status."""
    found = list(scan(Path(arguments[0]) if arguments else ROOT))
    for file, what, key in found:
        sys.stdout.write(f"{file}: {what}: {key[:4]}… ({digest(key)})\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
