"""Access keys, key ids, derived keys, and signing and verifying client tokens.

>>> from odingw.tokens import AccessKey, Policy, TokenGenerator, verify
>>> key = AccessKey("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
>>> token = TokenGenerator(key).create_token("lobby", "alice", now=1_700_000_000)
>>> keys = {key.kid: key.public_jwk()}
>>> verified = verify(token, keys.get, now=1_700_000_010, policy=Policy())
>>> verified.claims.rid, verified.claims.uid, verified.key.kid
('lobby', 'alice', 'AQ7aVmK+pI1l')

A real key comes from ``AccessKey.generate(secrets.token_bytes)``, and ``now`` from
``time.time()``: this package reads no clock and makes no randomness of its own.
"""

from odingw.errors import KeyMaterialError, TokenError, TokenFault
from odingw.tokens.claims import (
    Claims,
    Internal,
    Policy,
    Verified,
    VerifyingKey,
    check_claims,
    decode_claims,
    verify,
)
from odingw.tokens.derived import (
    decode_master_key,
    decode_master_keys,
    master_key_lines,
    server_key,
)
from odingw.tokens.generator import TokenGenerator
from odingw.tokens.jws import ALGORITHMS, Header, Jws, check_signature, parse
from odingw.tokens.keys import (
    AccessKey,
    KeyType,
    PrivateJwk,
    PublicJwk,
    SecretKey,
    is_key_id,
    is_key_id_of,
    key_id,
    load_public_jwk,
)

__all__ = [
    "ALGORITHMS",
    "AccessKey",
    "Claims",
    "Header",
    "Internal",
    "Jws",
    "KeyMaterialError",
    "KeyType",
    "Policy",
    "PrivateJwk",
    "PublicJwk",
    "SecretKey",
    "TokenError",
    "TokenFault",
    "TokenGenerator",
    "Verified",
    "VerifyingKey",
    "check_claims",
    "check_signature",
    "decode_claims",
    "decode_master_key",
    "decode_master_keys",
    "is_key_id",
    "is_key_id_of",
    "key_id",
    "load_public_jwk",
    "master_key_lines",
    "parse",
    "server_key",
    "verify",
]
