"""The table of targets: each feeds bytes to a real parser, and raises if a promise is broken."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from tests.fuzz import documents, http, network, rpc, tokens

Target: TypeAlias = Callable[[bytes], None]

TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "access_key": tokens.access_key,
        "access_token": tokens.access_token,
        "admin": http.admin,
        "client_call": rpc.client_call,
        "config": documents.config,
        "customers": documents.customers,
        "grid_config": documents.grid_config,
        "http": http.public,
        "jwk_set": documents.keys_of_a_set,
        "server_calls": rpc.server_calls,
        "stun": network.message,
        "stun_answer": network.answer,
        "turn_token": tokens.turn_token,
        "turnrest": documents.turnrest,
        "uri": documents.uri,
    }
)

FOLDER: Final = Path(__file__).parent
CORPUS: Final = FOLDER / "corpus"
FOUND: Final = FOLDER / "found"


def corpus(name: str) -> list[Path]:
    """Return the files of a target's corpus, in an order that never changes."""
    return sorted((CORPUS / name).iterdir())
