"""This server as an OAuth client: how it authenticates (RFC 6749 §2.3, RFC 7523)."""

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import msgspec

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable, Headers
from seawall.identity.outbound.secrets import Secret

if TYPE_CHECKING:  # imported only where a private key is configured
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["OAuthClient", "open_client"]

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 60

Sign = Callable[[bytes], bytes]


class OAuthClient:
    """A client with its way of authentication."""

    def __init__(
        self, client_id: str, auth: str, secret: Callable[[], str], *, key_id: str = ""
    ) -> None:
        """Create it.

        Args:
            client_id: The client.
            auth: See `OAuthClientAuth.client_auth`.
            secret: Its secret, or its private key in PEM format.
            key_id: `kid` of the private key; empty for none.
        """
        self.client_id = client_id
        self.auth = auth
        self._secret = secret
        self._key_id = key_id
        self._signer: tuple[str, str, Sign] | None = None  # of which PEM, algorithm, signature

    def authenticate(self, form: dict[str, str], audience: str) -> Headers:
        """Add to a form what proves who the client is.

        Args:
            form: Changed in place.
            audience: `aud` of an assertion.

        Returns:
            Headers to add to the request.

        Raises:
            CredentialsUnavailable: The secret cannot be read.
        """
        if self.auth == "client_secret_basic":
            # RFC 6749 §2.3.1: both parts are form-encoded before they are joined
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self._secret())}"
            return ((b"authorization", b"Basic " + base64.b64encode(pair.encode())),)
        form["client_id"] = self.client_id
        if self.auth == "client_secret_post":
            form["client_secret"] = self._secret()
        elif self.auth == "private_key_jwt":
            form["client_assertion_type"] = _ASSERTION_TYPE
            form["client_assertion"] = self._assertion(audience)
        return ()

    def check(self) -> None:
        """Try the secret.

        Raises:
            CredentialsUnavailable: It cannot be used.
        """
        self.authenticate({}, "")

    def _assertion(self, audience: str) -> str:
        """A JWT that the client signs about itself (RFC 7523 §3)."""
        pem = self._secret()
        if self._signer is None or self._signer[0] != pem:
            self._signer = (pem, *_signer(pem))
        _, algorithm, sign = self._signer
        now = int(time.time())
        header = {"alg": algorithm, "typ": "JWT"} | ({"kid": self._key_id} if self._key_id else {})
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        signed = ".".join(_encoded(msgspec.json.encode(each)) for each in (header, claims))
        return f"{signed}.{_encoded(sign(signed.encode()))}"

    def __repr__(self) -> str:
        return f"OAuthClient({self.client_id!r}, {self.auth!r})"


def open_client(
    client_id: str,
    auth: str,
    *,
    secret_env: str,
    secret_file: str,
    key_file: str,
    key_id: str,
    key: str,
    environment: Mapping[str, str],
) -> OAuthClient:
    """The client of a table.

    Args:
        client_id: See `OAuthClientAuth`; like the following.
        auth: See there.
        secret_env: See there.
        secret_file: See there.
        key_file: See there.
        key_id: See there.
        key: The table, for errors.
        environment: Environment variables.

    Raises:
        ConfigError: The secret is not there, or the key cannot be used.
    """
    if auth == "none":
        return OAuthClient(client_id, auth, str)
    if auth == "private_key_jwt":
        secret = Secret("", key_file, key=f"{key}.private_key", environment=environment)
    else:
        secret = Secret(
            secret_env, secret_file, key=f"{key}.client_secret", environment=environment
        )
    client = OAuthClient(client_id, auth, secret.value, key_id=key_id)
    try:
        client.check()
    except CredentialsUnavailable as error:
        raise ConfigError(f"{key}.private_key_file: {key_file}: {error.detail}") from None
    return client


def _signer(pem: str) -> tuple[str, Sign]:
    """The algorithm of a private key, and what signs with it."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        return _signer_of(load_pem_private_key(pem.encode(), password=None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialsUnavailable("is not a PEM private key without a password") from None


def _signer_of(loaded: "PrivateKeyTypes") -> tuple[str, Sign]:
    from cryptography.hazmat.primitives.asymmetric import (  # noqa: PLC0415 - see above
        ec,
        ed25519,
        padding,
        rsa,
        utils,
    )
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    if isinstance(loaded, rsa.RSAPrivateKey) and loaded.key_size >= 2_048:
        return "RS256", lambda text: loaded.sign(text, padding.PKCS1v15(), SHA256())
    if isinstance(loaded, ed25519.Ed25519PrivateKey):
        return "EdDSA", loaded.sign
    if isinstance(loaded, ec.EllipticCurvePrivateKey) and isinstance(loaded.curve, ec.SECP256R1):

        def sign(text: bytes) -> bytes:
            r, s = utils.decode_dss_signature(loaded.sign(text, ec.ECDSA(SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)

        return "ES256", sign
    raise CredentialsUnavailable("must be RSA of 2,048 bits or more, P-256 or Ed25519")


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
