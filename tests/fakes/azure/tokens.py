"""JSON Web Tokens, signed by a key of a test."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

_numbers = itertools.count()


@cache
def _shared_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Signer:
    """A key that signs tokens, and tells its own from others'.

    Args:
        key: the key; one that all share if None.
        certificate: of the key; the tokens have it, for services that trust its authority.

    Attributes:
        signed: all tokens, in order.
        now: returns the time in seconds since 1970.
    """

    def __init__(
        self, key: rsa.RSAPrivateKey | None = None, certificate: x509.Certificate | None = None
    ) -> None:
        self._key = key
        self._headers: dict[str, Any] = {}
        if certificate:
            text = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
            self._headers["x5c"] = [text]
        self.signed: list[str] = []
        self.now: Callable[[], float] = time.time

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key; one for all signers that were given none."""
        return self._key or _shared_key()

    def sign(self, lifetime: float, **claims: Any) -> str:
        """Return a token that differs from every other one."""
        now = int(self.now())
        times = {"iat": now, "nbf": now, "exp": now + int(lifetime)}
        token = jwt.encode(
            {**times, "uti": f"t{next(_numbers)}", **claims},
            self.key,
            algorithm="RS256",
            headers=self._headers,
        )
        self.signed.append(token)
        return token

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token of this key.

        Raises:
            jwt.InvalidTokenError: it is another's, it has expired, or it is for another audience.
        """
        # The library has a clock of its own.
        claims: dict[str, Any] = jwt.decode(
            token,
            self.key.public_key(),
            algorithms=["RS256"],
            audience=audience,
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        if claims["exp"] <= self.now():
            raise jwt.ExpiredSignatureError
        return claims
