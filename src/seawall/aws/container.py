"""Credentials from a container's endpoint: EKS Pod Identity, ECS, Lambda SnapStart.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

import asyncio
import ipaddress
from collections.abc import Mapping

from seawall.aws import Credentials, CredentialsUnavailable, parse_issued, read_token
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["ContainerSource"]

_RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
_FULL = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - a name
_TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105 - a name

# Hosts permitted without TLS besides loopback: ECS, and EKS Pod Identity by both protocols.
_ALLOWED_HOSTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"})

_ATTEMPTS = 3
_ATTEMPT_SECONDS = 2.0
_PAUSE_SECONDS = 0.5
_MAX_BYTES = 65_536


class ContainerSource:
    """The endpoint that AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI names.

    It is authorised by AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, which is read each time because
    it is rotated, or by AWS_CONTAINER_AUTHORIZATION_TOKEN.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        client: HttpClient,
        *,
        base_url: str = "http://169.254.170.2",
    ) -> None:
        """Create the source; a relative URI is relative to `base_url`."""
        self._environment = environment
        self._client = client
        self._base_url = base_url

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """See `CredentialSource.fetch`."""
        if relative := self._environment.get(_RELATIVE, ""):
            endpoint = _parse(_RELATIVE, self._base_url + relative)
        elif full := self._environment.get(_FULL, ""):
            endpoint = _parse(_FULL, full)
            if not (endpoint.origin.secure or _allowed(endpoint.origin.host)):
                raise CredentialsUnavailable(
                    f"{_FULL}: {endpoint.origin.host} is not permitted over plain http"
                )
        else:
            return None
        headers = [(b"accept", b"application/json")]
        if token := await self._token():
            headers.append((b"authorization", token))
        return parse_issued(await self._ask(endpoint, headers, deadline), "the container endpoint")

    async def _token(self) -> bytes:
        if path := self._environment.get(_TOKEN_FILE, ""):
            token = await read_token(path, _TOKEN_FILE)
        else:
            token = self._environment.get(_TOKEN, "")
        if not token.isascii() or not token.isprintable():
            raise CredentialsUnavailable(
                "the container's authorization token cannot be a header value"
            )
        return token.encode()

    async def _ask(
        self, endpoint: Endpoint, headers: list[tuple[bytes, bytes]], deadline: float
    ) -> bytes:
        loop = asyncio.get_running_loop()
        failure = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                answer = await self._client.request(
                    "GET",
                    endpoint,
                    headers=headers,
                    deadline=min(deadline, loop.time() + _ATTEMPT_SECONDS),
                    limit=_MAX_BYTES,
                )
            except TransportError as error:
                failure = str(error)
                continue
            if answer.status == 200:
                return answer.body
            failure = f"status {answer.status}"
            if answer.status < 500 and answer.status != 429:
                break
        raise CredentialsUnavailable(f"the container endpoint: {failure}")


def _parse(variable: str, url: str) -> Endpoint:
    try:
        return Endpoint.parse(url)
    except ValueError as error:
        raise CredentialsUnavailable(f"{variable}: {error}") from None


def _allowed(host: str) -> bool:
    if host in _ALLOWED_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
