"""Credentials for a web identity: IAM roles for service accounts (IRSA) on EKS.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from seawall.aws import Credentials, CredentialsUnavailable, endpoint_url, parse_time, read_token
from seawall.aws.profile import Profiles, load_profile
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["WebIdentitySource"]

_ATTEMPTS = 3
_ATTEMPT_SECONDS = 3.0
_PAUSE_SECONDS = 0.2
_MAX_BYTES = 65_536
# An identity provider that STS could not reach, and a token that has not yet propagated.
_RETRYABLE = frozenset({"IDPCommunicationError", "InvalidIdentityToken", "Throttling"})


class WebIdentitySource:
    """Exchanges the token in a file for the credentials of a role.

    From AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and AWS_ROLE_SESSION_NAME, or from
    web_identity_token_file, role_arn and role_session_name of the profile. The file is read each
    time, because it is rotated. The call is not signed: the token is the proof.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        client: HttpClient,
        *,
        region: str,
        base_url: str = "",
    ) -> None:
        """Create the source; `base_url` is that of STS, empty for the region's own."""
        self._environment = environment
        self._client = client
        self._region = region
        self._base_url = base_url

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """See `CredentialSource.fetch`."""
        path = self._environment.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
        role = self._environment.get("AWS_ROLE_ARN", "")
        name = self._environment.get("AWS_ROLE_SESSION_NAME", "")
        if not path:
            profile = await asyncio.to_thread(load_profile, Profiles(self._environment)) or {}
            path = profile.get("web_identity_token_file", "")
            role = role or profile.get("role_arn", "")
            name = name or profile.get("role_session_name", "")
        if not path:
            return None
        if not role:
            raise CredentialsUnavailable("there is a web identity token file, but no AWS_ROLE_ARN")
        if not (self._base_url or self._region):
            raise CredentialsUnavailable("a web identity needs a region: set AWS_REGION")
        token = await read_token(path, "AWS_WEB_IDENTITY_TOKEN_FILE")
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": name or f"seawall-{int(time.time())}",
            "WebIdentityToken": token,
        }
        return _parse(await self._ask(urlencode(form).encode(), deadline))

    async def _ask(self, form: bytes, deadline: float) -> bytes:
        endpoint = Endpoint.parse(self._base_url or endpoint_url("sts", self._region))
        loop = asyncio.get_running_loop()
        failure = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                answer = await self._client.request(
                    "POST",
                    endpoint,
                    headers=[(b"content-type", b"application/x-www-form-urlencoded")],
                    body=form,
                    deadline=min(deadline, loop.time() + _ATTEMPT_SECONDS),
                    limit=_MAX_BYTES,
                )
            except TransportError as error:
                failure = str(error)
                continue
            if answer.status == 200:
                return answer.body
            code = _texts(answer.body).get("Code", "")
            failure = f"status {answer.status} {code}"
            if answer.status < 500 and code not in _RETRYABLE:
                break
        raise CredentialsUnavailable(f"STS, AssumeRoleWithWebIdentity: {failure}")


def _parse(document: bytes) -> Credentials:
    texts = _texts(document)
    try:
        return Credentials(
            texts["AccessKeyId"],
            texts["SecretAccessKey"],
            texts["SessionToken"],
            parse_time(texts["Expiration"]),
        )
    except (KeyError, ValueError):
        raise CredentialsUnavailable("STS did not return credentials") from None


def _texts(document: bytes) -> dict[str, str]:
    """Return the texts of an XML document by the local names of their elements."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - only where it is needed

    try:
        root = ET.fromstring(document)  # noqa: S314 - from STS, small, and expat bounds expansion
    except (ET.ParseError, ValueError, LookupError):
        return {}
    return {each.tag.rpartition("}")[2]: (each.text or "").strip() for each in root.iter()}
