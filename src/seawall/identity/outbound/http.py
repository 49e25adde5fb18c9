"""Requests to authorization servers: bounded, and with errors that name the server."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.transport.connection import TransportError
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

__all__ = ["MAX_BYTES", "post_form", "send"]

MAX_BYTES = 65_536


async def send(
    client: HttpClient,
    method: str,
    url: str,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    deadline: float,
) -> BufferedResponse:
    """Send one request; redirects are not followed.

    Args:
        client: Sends it.
        method: The HTTP method.
        url: The address; where it comes from a document it has been checked.
        headers: Beside `accept`.
        body: The request body.
        deadline: On the event loop's clock.

    Raises:
        CredentialsUnavailable: There was no answer, or more than 64 KiB of it.
    """
    try:
        return await client.request(
            method,
            Endpoint.parse(url),
            headers=((b"accept", b"application/json"), *headers),
            body=body,
            deadline=deadline,
            limit=MAX_BYTES,
            replay=method == "GET",
        )
    except (TransportError, ValueError) as error:
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise CredentialsUnavailable(f"the authorization server {host}: {error}") from None


async def post_form(
    client: HttpClient,
    url: str,
    form: Mapping[str, str],
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    deadline: float,
) -> BufferedResponse:
    """Send a form; see `send`."""
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    body = urlencode(form).encode("ascii")
    return await send(client, "POST", url, headers=(kind, *headers), body=body, deadline=deadline)
