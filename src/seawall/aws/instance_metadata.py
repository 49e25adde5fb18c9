"""Credentials of the role of an EC2 instance, by the instance metadata service, version 2 only.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
"""

import asyncio
import re
from collections.abc import Mapping

from seawall.aws import Credentials, CredentialsUnavailable, parse_issued
from seawall.transport.connection import TransportError
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

__all__ = ["InstanceMetadataSource"]

_ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
_ATTEMPT_SECONDS = 1.0
_MAX_BYTES = 65_536
_role = re.compile(rb"[\w+=,.@-]{1,128}")


class InstanceMetadataSource:
    """Credentials of the machine. Disabled where AWS_EC2_METADATA_DISABLED is true.

    No service means that this source is not configured, not that it fails: most machines are no
    EC2 instances. So does a service without a role.
    """

    def __init__(
        self, environment: Mapping[str, str], client: HttpClient, *, base_url: str = ""
    ) -> None:
        """Create the source; `base_url` is empty for that of the environment, or the well-known."""
        self._disabled = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self._base_url = (
            base_url
            or environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
            or "http://169.254.169.254"
        ).rstrip("/")
        self._client = client

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """See `CredentialSource.fetch`."""
        if self._disabled:
            return None
        lifetime = (b"x-aws-ec2-metadata-token-ttl-seconds", b"300")
        try:
            token = await self._ask("PUT", "/latest/api/token", lifetime, deadline)
        except TransportError:
            return None
        if token.status in (403, 404, 405):  # disabled, or another service
            return None
        proof = (b"x-aws-ec2-metadata-token", _whole(token).strip())
        try:
            listed = await self._ask("GET", _ROLE_PATH, proof, deadline)
            if listed.status == 404:
                return None
            role = _whole(listed).strip()
            if not _role.fullmatch(role):
                raise CredentialsUnavailable("instance metadata did not name a role")
            answer = await self._ask("GET", _ROLE_PATH + role.decode("ascii"), proof, deadline)
        except TransportError as error:
            raise CredentialsUnavailable(f"instance metadata: {error}") from error
        return parse_issued(_whole(answer), "instance metadata")

    async def _ask(
        self, method: str, path: str, header: tuple[bytes, bytes], deadline: float
    ) -> BufferedResponse:
        return await self._client.request(
            method,
            Endpoint.parse(self._base_url + path),
            headers=[header],
            deadline=min(deadline, asyncio.get_running_loop().time() + _ATTEMPT_SECONDS),
            limit=_MAX_BYTES,
        )


def _whole(answer: BufferedResponse) -> bytes:
    if answer.status != 200:
        raise CredentialsUnavailable(f"instance metadata: status {answer.status}")
    return answer.body
