"""An identity provider for tests."""

import base64
import json
import time
from typing import Any

from joserfc import jwk, jws

ISSUER = "https://issuer.example"
AUDIENCE = "seawall-tests"

Key = jwk.RSAKey | jwk.ECKey | jwk.OKPKey


class Issuer:
    """Signs any claims."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Key, str]] = {}

    def add(self, kid: str, algorithm: str = "RS256") -> None:
        """Make a key pair."""
        parameters: jwk.KeyParameters = {"kid": kid, "use": "sig"}
        key: Key
        if algorithm == "RS256":
            key = jwk.RSAKey.generate_key(2048, parameters)
        elif algorithm == "ES256":
            key = jwk.ECKey.generate_key("P-256", parameters)
        else:
            key = jwk.OKPKey.generate_key("Ed25519", parameters)
        self.keys[kid] = (key, algorithm)

    def key_set(self) -> bytes:
        """What the provider publishes."""
        return json.dumps(
            {"keys": [key.as_dict(private=False) for key, _ in self.keys.values()]}
        ).encode()

    def claims(self, subject: str = "ada", **changes: Any) -> dict[str, Any]:
        """Valid claims; a change to None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant": "acme",
            "iat": now,
            "exp": now + 600,
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        subject: str = "ada",
        kid: str = "one",
        header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A signed token."""
        key, algorithm = self.keys[kid]
        # Since RFC 9864 the library knows EdDSA by the curve's own name.
        name = "Ed25519" if algorithm == "EdDSA" else algorithm
        protected = {"alg": name, "kid": kid, "typ": "JWT"} | (header or {})
        payload = json.dumps(self.claims(subject, **changes)).encode()
        registry = jws.JWSRegistry(algorithms=[name], strict_check_header=False)
        return jws.serialize_compact(protected, payload, key, registry=registry)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    """A token without a valid signature."""
    return f"{encoded(header)}.{encoded(claims)}.{signature}"


def encoded(value: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
