"""What a JWK is for (RFC 7517, sections 4.2 to 4.4), and whether it is public."""

from collections.abc import Mapping
from typing import Final

from odingw.documents import is_absent, is_nothing
from odingw.errors import KeyMaterialError

PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth")
"""The private members of a key pair (RFC 7518, section 6; RFC 8037, section 2)."""

_ENCRYPTION: Final = (
    *("RSA1_5", "RSA-OAEP", "ECDH-", "HPKE-", "ML-KEM-"),
    *("PBES2-", "A128", "A192", "A256", "dir"),
)
"""How the algorithms begin that encrypt (RFC 7518, sections 4.1 and 5.1, and later ones)."""
_AGREEMENT: Final = ("X25519", "X448")


class OtherUseError(KeyMaterialError):
    """A key is for something else than signatures."""


def check_use(members: Mapping[str, object]) -> None:
    """Refuse a key that is not for verifying signatures, whatever else is wrong with it.

    By its ``use``, ``key_ops`` and ``alg``, or by a curve that has no signatures (RFC 8037, section
    3.2). Members of a wrong type are passed over.

    Args:
        members: those of the JWK; ones that are not needed may be left out.

    Raises:
        OtherUseError: it is for something else.
        KeyMaterialError: it is for its holder alone.
    """
    use, key_ops, alg = (members.get(name) for name in ("use", "key_ops", "alg"))
    if any(not is_absent(members.get(name)) for name in PRIVATE):
        raise KeyMaterialError("it holds a private key, so anybody who can read it can sign")
    if isinstance(use, str) and use not in ("", "sig"):
        if use.lower().startswith("sig"):
            raise KeyMaterialError('its use must be "sig", in these letters')
        raise OtherUseError("its use is not sig")
    if isinstance(key_ops, list | tuple):
        operations = [name for name in key_ops if not is_nothing(name)]
        if operations == ["sign"]:
            raise KeyMaterialError('its key_ops must be ["verify"], as "sign" is for a private key')
        if operations and "verify" not in operations and all(map(_is_text, operations)):
            raise OtherUseError("verify is not among its key_ops")
    if isinstance(alg, str) and alg.startswith(_ENCRYPTION):
        raise OtherUseError("its alg is none that is accepted: it encrypts")
    if members.get("kty") == "OKP" and members.get("crv") in _AGREEMENT:
        raise OtherUseError("its curve has no signatures")


def _is_text(value: object) -> bool:
    return isinstance(value, str)
