"""An issuer of tokens for tests and local use: a private key in a file, and its key set.

It proves nothing about anyone: anyone with the private key can sign a token for every tenant.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from seawall.errors import ConfigError

__all__ = ["KEY_FILE", "KEY_SET_FILE", "LocalIssuer"]

KEY_FILE = "private-key.pem"
KEY_SET_FILE = "jwks.json"
_KID = "local-test"


class LocalIssuer:
    """Signs tokens with RS256."""

    def __init__(self, key: RSAPrivateKey | None = None) -> None:
        """Take the key of 2,048 bits or more; a new one by default."""
        self._key = key or _new_key()

    @classmethod
    def open(cls, folder: Path) -> "LocalIssuer":
        """Load the issuer of a folder; the first time, create its key and its key set.

        Args:
            folder: Has `private-key.pem`, readable by its owner only, and `jwks.json`. Created
                where it is missing.

        Raises:
            ConfigError: A file cannot be read or written, or the key is not an RSA key.
        """
        path = folder / KEY_FILE
        try:
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / ".gitignore").write_text("*\n")
                _create_key(path)
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, RSAPrivateKey):
                raise ConfigError(f"{path}: is not an RSA key")
            issuer = cls(key)
            (folder / KEY_SET_FILE).write_bytes(issuer.key_set())
        except OSError as error:
            raise ConfigError(f"{error.filename or folder}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: is not a private key: {error}") from error
        return issuer

    def key_set(self) -> bytes:
        """The public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        public = {"kty": "RSA", "kid": _KID, "use": "sig", "alg": "RS256"}
        for name, number in (("e", numbers.e), ("n", numbers.n)):
            public[name] = _encoded(number.to_bytes((number.bit_length() + 7) // 8))
        return msgspec.json.encode({"keys": [public]})

    def token(
        self,
        *,
        issuer: str,
        subject: str,
        tenant: str,
        audience: str = "",
        issued_at: int,
        seconds: int = 3_600,
        roles: Sequence[str] = (),
    ) -> str:
        """Sign a token.

        Args:
            issuer: Claim `iss`.
            subject: Claim `sub`.
            tenant: Claim `tenant`.
            audience: Claim `aud`; empty for none.
            issued_at: Unix seconds.
            seconds: How long it is valid.
            roles: Claim `roles`; none by default.
        """
        claims: dict[str, object] = {
            "iss": issuer,
            "sub": subject,
            "tenant": tenant,
            "iat": issued_at,
            "exp": issued_at + seconds,
        }
        if audience:
            claims["aud"] = audience
        if roles:
            claims["roles"] = list(roles)
        parts = ({"alg": "RS256", "typ": "JWT", "kid": _KID}, claims)
        signed = ".".join(_encoded(msgspec.json.encode(each)) for each in parts)
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _new_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65_537, key_size=2_048)


def _create_key(path: Path) -> None:
    pem = _new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
