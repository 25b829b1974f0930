"""Requests that two parsers may read differently (request smuggling), and how to read them."""

from typing import Final

from tests.smuggling import chunks, exchanges, framing, requests
from tests.smuggling.variants import HIDDEN, Seen, Then, Variant

__all__ = ["HIDDEN", "VARIANTS", "Seen", "Then", "Variant"]

VARIANTS: Final = tuple(
    variant
    for module in (framing, chunks, requests, exchanges)
    for kind in module.KINDS
    for variant in kind()
)
