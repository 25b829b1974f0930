"""What a server gets with ``sfu.GridConfig``, and whether the gateway kept the rules of it.

The rules are those of the wire reference, section 7: a value that the server already has is kept,
tables are merged key by key, arrays are joined with the gateway's items last.
"""

import math
import tomllib
from typing import Any, Final

import msgspec

from odingw.sim.wire import Misbehaviour
from odingw.tokens import KeyMaterialError, KeyType, PrivateJwk, SecretKey, base64url

_MILLISECONDS: Final = 1000


class Settings(msgspec.Struct, frozen=True):
    """What a server needs of its settings.

    Attributes:
        report_interval: seconds.
        key: the server's key, with which its room tokens are signed.
    """

    report_interval: float
    key: SecretKey


class _Answer(msgspec.Struct, frozen=True):
    config: str


def read_settings(own: str, result: object) -> Settings:
    """Read the result of ``sfu.GridConfig``.

    Args:
        own: the TOML text that the server sent.
        result: the result as it came.

    Raises:
        Misbehaviour: a setting of the server's own was changed, or what the gateway must add is
            missing or wrong. The text never shows a key.
    """
    try:
        text = msgspec.convert(result, _Answer).config
    except msgspec.ValidationError as wrong:
        raise Misbehaviour(f"result of sfu.GridConfig: {wrong}") from None
    try:
        merged = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise Misbehaviour(f"sfu.GridConfig: not TOML: {wrong}") from None
    before = tomllib.loads(own)
    _check_kept(before, merged, "")
    interval = _lookup(merged, "supervisor", "report_interval")
    if type(interval) is not int or interval <= 0:
        raise Misbehaviour("supervisor.report_interval must be a number of milliseconds above 0")
    own_keys = _lookup(before, "authorization", "keys") or []
    keys = _lookup(merged, "authorization", "keys")
    if not isinstance(keys, list):
        raise Misbehaviour("authorization.keys must be an array")
    # Arrays are joined, and the server's own items are checked to come first.
    added = [key for key in keys[len(own_keys) :] if isinstance(key, dict) and "d" in key]
    if not added:
        raise Misbehaviour("authorization.keys: no private key was added")
    return Settings(interval / _MILLISECONDS, _load_key(added[-1]))


def _lookup(table: dict[str, Any], *path: str) -> Any:
    """Return what stands at a path of keys; None if nothing does."""
    value: Any = table
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _check_kept(before: object, after: object, path: str) -> None:
    """Raise if a value of the server's own is not where it was, or not what it was."""
    kept: bool
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            where = f"{path}.{key}" if path else key
            if key not in after:
                raise Misbehaviour(f"the server's own setting {where} was dropped")
            _check_kept(value, after[key], where)
        return
    if isinstance(before, list) and isinstance(after, list):
        kept = len(after) >= len(before)
        if kept:
            for index, value in enumerate(before):
                _check_kept(value, after[index], f"{path}[{index}]")
    elif isinstance(before, float) and math.isnan(before):
        kept = isinstance(after, float) and math.isnan(after)
    else:
        # 1, 1.0 and true are equal to Python, but not to a server that reads TOML by type.
        kept = type(before) is type(after) and before == after
    if not kept:
        raise Misbehaviour(f"the server's own setting {path} was changed")


def _load_key(value: dict[str, Any]) -> SecretKey:
    try:
        jwk = msgspec.convert(value, PrivateJwk)
        key = SecretKey(base64url.decode(jwk.d.encode()), KeyType.DERIVED)
    except (msgspec.ValidationError, KeyMaterialError, ValueError):
        raise Misbehaviour("authorization.keys: the added key is no private Ed25519 JWK") from None
    if jwk != key.private_jwk():
        raise Misbehaviour("authorization.keys: kty, crv, kid or x do not belong to the added key")
    return key
