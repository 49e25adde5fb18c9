"""Webhooks that are signed as Standard Webhooks say (standardwebhooks.com)."""

import asyncio
import base64
import hashlib
import hmac
import logging
import time

from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["Webhook", "decode_secret", "sign"]

_SECONDS = 3.0
_MAX_ANSWER_BYTES = 65_536
_MIN_SECRET_BYTES = 24
_MAX_SECRET_BYTES = 64

_log = logging.getLogger("seawall.webhook")


def decode_secret(secret: str) -> bytes:
    """The key of a secret in the form `whsec_BASE64`.

    Raises:
        ValueError: It is not in this form, or not 24 to 64 bytes long.
    """
    prefix, encoded = secret[:6], secret[6:]
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if prefix != "whsec_" or not _MIN_SECRET_BYTES <= len(key) <= _MAX_SECRET_BYTES:
        raise ValueError("must be whsec_ and 24 to 64 random bytes in base64")
    return key


def sign(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`.

    Args:
        key: See `decode_secret`.
        message: The value of `webhook-id`.
        timestamp: The value of `webhook-timestamp`.
        body: As it is sent.
    """
    signed = f"{message}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """A receiver of notifications."""

    def __init__(self, client: HttpClient, url: str, key: bytes) -> None:
        """Create it.

        Args:
            client: Sends the requests.
            url: Of the receiver.
            key: See `decode_secret`.
        """
        self._client = client
        self._endpoint = Endpoint.parse(url)
        self._key = key

    async def deliver(self, message: str, body: bytes) -> bool:
        """Send a notification once.

        Args:
            message: Its id; the same whenever it is sent again.
            body: JSON.

        Returns:
            Whether the receiver answered with a status of success in time.
        """
        now = int(time.time())
        headers = (
            (b"content-type", b"application/json"),
            (b"webhook-id", message.encode()),
            (b"webhook-timestamp", str(now).encode()),
            (b"webhook-signature", sign(self._key, message, now, body).encode()),
        )
        deadline = asyncio.get_running_loop().time() + _SECONDS
        try:
            answer = await self._client.request(
                "POST",
                self._endpoint,
                headers=headers,
                body=body,
                deadline=deadline,
                limit=_MAX_ANSWER_BYTES,
            )
        except TransportError as error:
            _log.warning("notification %s was not delivered: %s", message, error)
            return False
        if not 200 <= answer.status < 300:
            _log.warning("notification %s was answered with status %d", message, answer.status)
            return False
        return True
