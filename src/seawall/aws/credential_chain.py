"""Where credentials are looked for, in the order that AWS's own SDKs have."""

from collections.abc import Iterable, Iterator, Mapping

from seawall.aws.credentials import (
    Credentials,
    CredentialSource,
    EnvironmentSource,
    NoCredentials,
)
from seawall.transport.http_client import HttpClient

__all__ = ["CredentialChain", "default_chain"]


class CredentialChain:
    """Asks its sources in turn, and from then on only the one that had credentials.

    sources: gone through from the beginning each time, and no further than needed.
    """

    def __init__(self, sources: Iterable[CredentialSource]) -> None:
        self._sources = sources
        self._chosen: CredentialSource | None = None

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """See `CredentialSource.fetch`.

        A source that is configured but fails ends the search: to go on would be to act as
        somebody else than was meant.

        Raises:
            NoCredentials: no source is configured.
            CredentialsUnavailable: a source fails.
        """
        if self._chosen is not None:
            return await self._chosen.fetch(deadline=deadline)
        for source in self._sources:
            if (found := await source.fetch(deadline=deadline)) is not None:
                self._chosen = source
                return found
        raise NoCredentials(
            "no AWS credentials: none in the environment or the shared files, no web identity, "
            "no container endpoint, no instance role"
        )


def default_chain(
    environment: Mapping[str, str], client: HttpClient, *, region: str
) -> CredentialChain:
    """Environment, web identity, profile, container endpoint, instance metadata.

    That is botocore's order (botocore/credentials.py, create_credential_resolver) without what
    is not supported here: assuming a role by profile, single sign-on, credential processes.
    As there, a profile chosen by AWS_PROFILE does not outrank keys in the environment.
    environment: variables as at start; nothing else of the process's environment is read.
    region: whose STS is asked for a web identity.
    """
    return CredentialChain(_Sources(environment, client, region))


class _Sources:
    """The sources; each is imported when those before it had nothing: a cold start waits for it."""

    def __init__(self, environment: Mapping[str, str], client: HttpClient, region: str) -> None:
        self._environment = environment
        self._client = client
        self._region = region

    def __iter__(self) -> Iterator[CredentialSource]:
        environment, client = self._environment, self._client
        yield EnvironmentSource(environment)
        from seawall.aws.web_identity import WebIdentitySource  # noqa: PLC0415

        yield WebIdentitySource(environment, client, region=self._region)
        from seawall.aws.profile import Profiles, ProfileSource  # noqa: PLC0415

        yield ProfileSource(Profiles(environment))
        from seawall.aws.container import ContainerSource  # noqa: PLC0415

        yield ContainerSource(environment, client)
        from seawall.aws.instance_metadata import InstanceMetadataSource  # noqa: PLC0415

        yield InstanceMetadataSource(environment, client)
