"""The answer to ``GridConfig``: a server's own TOML, extended with what the gateway recommends.

Wire reference, sections 4 and 7. A value that the server already has is kept, tables are merged key
by key, arrays are joined (the gateway's items last), what is missing is added.
"""

import tomllib
from collections.abc import Mapping
from typing import Any, Final

from odingw.documents import unmarked
from odingw.errors import invalid_params
from odingw.rpc.toml_edit import ImpossibleError, insert, render
from odingw.rpc.toml_outline import Section, outline, where

_LONGEST_CAUSE: Final = 200


def recommended(
    report_interval: float, metrics_allowed: str, overrides: Mapping[str, object]
) -> dict[str, object]:
    """The recommended settings (wire reference, section 7), without the server's key.

    Args:
        report_interval: seconds between two reports of a server.
        metrics_allowed: address range that may read a server's metrics.
        overrides: ``[gateway.grid_config]``; its values win, its tables merge, its arrays replace.
    """
    settings: dict[str, object] = {
        "supervisor": {"report_interval": round(report_interval * 1000)},
        "quic": {
            "keep_alive_interval": 5000,
            "idle_timeout": 30_000,
            "pre_send_timeout": 500,
            "migration": True,
        },
        "http": {"timeout": 10_000, "ping_interval": 5000},
        "metrics": {
            "binding": "0.0.0.0:9000",
            "idle_timeout": 3_600_000,
            "global_labels": {"deployment": "public"},
            "allowed": [metrics_allowed, "127.0.0.1/8", "::1/128"],
        },
        "limit": {"peer": {"incoming_messages": {"rate": 10, "capacity": 50, "overflow": 20}}},
    }
    return _overridden(settings, overrides)


def extend(config: str, settings: Mapping[str, object], private_jwk: Mapping[str, str]) -> str:
    """Extend a server's configuration.

    Args:
        config: the server's TOML.
        settings: from `recommended`.
        private_jwk: the server's key; the last item of ``authorization.keys``, unless the server
            has something there that is no table or no array.

    Returns:
        The same text with insertions, without a byte order mark. Only where an array of tables is
        to get something that is no table, which TOML cannot say, the document is written anew: same
        values, comments lost.

    Raises:
        RpcError: -32602, ``config`` is not TOML 1.0, or nests too deep.
    """
    config = unmarked(config)
    sections = outline(config)
    theirs = _parsed(config)
    ours = _merged(settings, {"authorization": {"keys": [private_jwk]}})
    wanted = _merged(theirs, ours)
    extended = _inserted(config, sections, _missing(theirs, ours), wanted)
    return render(wanted) if extended is None else extended


def reports_elsewhere(config: str) -> str:
    """Return the section by which a server of version 1.6 or newer reports elsewhere, or ``""``.

    Args:
        config: the server's TOML, which ``extend`` has read.
    """
    theirs = _parsed(config)
    if "provisioning" in theirs:
        return "[provisioning]"
    database = theirs.get("database")
    return "[database.report]" if isinstance(database, Mapping) and "report" in database else ""


def _parsed(config: str) -> dict[str, Any]:
    try:
        config.encode()
        return tomllib.loads(unmarked(config))
    except tomllib.TOMLDecodeError as error:
        cause = str(error)
        if len(cause) > _LONGEST_CAUSE:  # it repeats the key
            cause = f"{cause[:_LONGEST_CAUSE]}… {cause[cause.rfind('(at ') :]}"
        raise invalid_params(f"config: {cause}") from None
    except UnicodeEncodeError as error:
        raise invalid_params(
            f"config: half of a surrogate pair {where(config, error.start)}"
        ) from None
    except ValueError:  # of int(), which reads 4300 digits and no more
        raise invalid_params("config: an integer has too many digits") from None


def _inserted(
    config: str,
    sections: list[Section] | None,
    additions: Mapping[str, object],
    wanted: Mapping[str, object],
) -> str | None:
    """The text with the additions, if that says what is wanted."""
    if sections is None:
        return None
    try:
        text = insert(config, sections, additions)
        return text if _same(tomllib.loads(text), wanted) else None
    except (ImpossibleError, ValueError):
        return None


def _overridden(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    result = dict(base)
    for key, value in over.items():
        existing = result.get(key)
        if isinstance(existing, Mapping) and isinstance(value, Mapping):
            result[key] = _overridden(existing, value)
        else:
            result[key] = value
    return result


def _merged(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of the answer, in plain values."""
    result = dict(theirs)
    for key, value in ours.items():
        existing = result.get(key)
        if key not in result:
            result[key] = value
        elif isinstance(existing, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(existing, value)
        elif isinstance(existing, list) and isinstance(value, list):
            result[key] = existing + value
    return result


def _missing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """What must be added to theirs; for an array that they have, the items to add."""
    result: dict[str, Any] = {}
    for key, value in ours.items():
        existing = theirs.get(key)
        if key not in theirs:
            result[key] = value
        elif isinstance(existing, Mapping) and isinstance(value, Mapping):
            result[key] = _missing(existing, value)
        elif isinstance(existing, list) and isinstance(value, list) and value:
            result[key] = value
    return result


def _same(one: object, other: object) -> bool:
    """Equal in type and value; unlike ``==``, NaN is NaN, and 1, 1.0 and true are three values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return type(one) is type(other) and one == other
