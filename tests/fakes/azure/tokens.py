"""JSON Web Tokens, signed by a key of a test."""

from __future__ import annotations

import itertools
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

_numbers = itertools.count()


@cache
def _shared_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Signer:
    """A key that signs tokens, and tells its own from others'.

    Args:
        key: the key; one that all share if None.

    Attributes:
        signed: all tokens, in order.
    """

    def __init__(self, key: rsa.RSAPrivateKey | None = None) -> None:
        self._key = key
        self.signed: list[str] = []

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key; one for all signers that were given none."""
        return self._key or _shared_key()

    def sign(self, lifetime: float, **claims: Any) -> str:
        """Return a token that differs from every other one."""
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + int(lifetime)}
        token = jwt.encode(
            {**times, "uti": f"t{next(_numbers)}", **claims}, self.key, algorithm="RS256"
        )
        self.signed.append(token)
        return token

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token of this key.

        Raises:
            jwt.InvalidTokenError: it is another's, it has expired, or it is for another audience.
        """
        return jwt.decode(token, self.key.public_key(), algorithms=["RS256"], audience=audience)
