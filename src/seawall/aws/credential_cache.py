"""Credential cache with renewal before expiry, and the default chain of credential sources."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from seawall.aws import (
    Credentials,
    CredentialsError,
    CredentialSource,
    CredentialsUnavailable,
    EnvironmentSource,
    NoCredentials,
)
from seawall.transport.http_client import HttpClient

__all__ = ["CredentialCache", "CredentialChain", "default_chain"]

_FETCH_SECONDS = 10.0

_log = logging.getLogger("seawall.aws")


class CredentialCache:
    """The credentials of one source.

    - Longer than `advisory` seconds before they expire they are simply used.
    - Then a fetch begins in the background, and the old ones are used meanwhile.
    - In the last `mandatory` seconds callers wait for the fetch; if it fails, the old ones are
      used until they have expired.
    - Fetches are at least `cooldown` seconds apart, so that a source that is down, or that issues
      short-lived credentials, is not called for every request.

    A fetch is a task of this cache: a caller that gives up does not end it for the others.
    The windows are botocore's (botocore/credentials.py: 15 and 10 minutes).
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        advisory: float = 900.0,
        mandatory: float = 600.0,
        cooldown: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create an empty cache.

        Args:
            source: Where credentials come from.
            advisory: Seconds before expiry from which they are renewed in the background.
            mandatory: Seconds before expiry from which callers wait for the renewal.
            cooldown: Seconds between fetches, at least.
            clock: Unix time in seconds.
        """
        self._source = source
        self._advisory = advisory
        self._mandatory = mandatory
        self._cooldown = cooldown
        self._clock = clock
        self._credentials: Credentials | None = None
        self._fresh_until = float("-inf")
        self._tried_at = float("-inf")
        self._failure: CredentialsError | None = None
        self._fetching: asyncio.Task[None] | None = None

    def current(self) -> Credentials | None:
        """Return the credentials if they need no renewal; does not wait."""
        return self._credentials if self._clock() < self._fresh_until else None

    async def get(self, *, deadline: float) -> Credentials:
        """Return credentials that have not expired.

        Args:
            deadline: On the event loop's clock.

        Raises:
            CredentialsError: There are none, or the deadline passed while waiting for them.
        """
        if (found := self.current()) is not None:
            return found
        now = self._clock()
        old = self._valid(now)
        left = old.expires_at - now if old is not None and old.expires_at is not None else 0.0
        if self._fetching is None and now - self._tried_at >= self._cooldown:
            self._begin(now)
        if old is not None and (self._fetching is None or left > self._mandatory):
            return old
        if self._fetching is not None:
            await self._wait(deadline)
        if (found := self._valid(self._clock())) is not None:
            return found
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))  # a new one: several callers may raise it
        raise CredentialsUnavailable("the AWS credentials did not arrive in time")

    async def renew(self, refused: Credentials, *, deadline: float) -> Credentials:
        """Return other credentials than those that AWS has just refused.

        Args:
            refused: The refused ones.
            deadline: On the event loop's clock.

        Raises:
            CredentialsError: The source has no others.
        """
        if self._same(refused):  # else another caller has renewed them already
            if self._fetching is None:
                self._begin(self._clock())
            await self._wait(deadline)
        if self._credentials is None or self._same(refused):
            raise CredentialsUnavailable("AWS refuses the credentials, and there are no others")
        return self._credentials

    async def close(self) -> None:
        """Cancel a pending fetch."""
        if (task := self._fetching) is not None:
            task.cancel()
            await asyncio.wait([task])

    def _same(self, refused: Credentials) -> bool:
        """Return whether the keys are the refused ones, whatever their expiry."""
        found = self._credentials
        return found is not None and (found.access_key, found.secret_key, found.token) == (
            refused.access_key,
            refused.secret_key,
            refused.token,
        )

    def _valid(self, now: float) -> Credentials | None:
        found = self._credentials
        if found is None or found.expires_at is None or found.expires_at > now:
            return found
        return None

    def _begin(self, now: float) -> None:
        self._tried_at = now
        self._fetching = asyncio.create_task(self._fetch(), name="seawall-aws-credentials")

    async def _wait(self, deadline: float) -> None:
        """Wait for the pending fetch, whatever its outcome, until the deadline."""
        if self._fetching is not None:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait([self._fetching], timeout=max(0.0, left))

    async def _fetch(self) -> None:
        deadline = asyncio.get_running_loop().time() + _FETCH_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                found = await self._source.fetch(deadline=deadline)
            if found is None:
                raise CredentialsUnavailable(
                    "the source of the AWS credentials is no longer available"
                )
            self._accept(found)
        except CredentialsError as error:
            self._fail(error)
        except TimeoutError:
            self._fail(CredentialsUnavailable("the AWS credentials did not arrive in time"))
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            self._fail(CredentialsUnavailable(f"the AWS credentials: {type(error).__name__}"))
        finally:
            self._fetching = None

    def _accept(self, found: Credentials) -> None:
        self._credentials = found
        self._failure = None
        never = float("inf")
        self._fresh_until = never if found.expires_at is None else found.expires_at - self._advisory

    def _fail(self, error: CredentialsError) -> None:
        self._failure = error
        _log.warning("AWS credentials are not available: %s", error)


class CredentialChain:
    """Tries its sources in order, and from then on uses only the one that had credentials."""

    def __init__(self, sources: Iterable[CredentialSource]) -> None:
        """Create the chain.

        Args:
            sources: Iterated from the beginning each time, and no further than needed.
        """
        self._sources = sources
        self._chosen: CredentialSource | None = None

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """See `CredentialSource.fetch`.

        A source that is configured but fails ends the search: the next one would be another
        identity than intended.

        Raises:
            NoCredentials: No source is configured.
            CredentialsUnavailable: A source fails.
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
    """Return the sources environment, web identity, profile, container endpoint, instance metadata.

    That is botocore's order (botocore/credentials.py, create_credential_resolver) without what
    is not supported here: assuming a role by profile, single sign-on, credential processes.
    As there, a profile chosen by AWS_PROFILE does not outrank keys in the environment.

    Args:
        environment: Environment variables; the process's own are not read.
        client: For the sources that are HTTP endpoints.
        region: Whose STS is called for a web identity.
    """
    return CredentialChain(_Sources(environment, client, region))


class _Sources:
    """The sources; each is imported when those before it had none, to keep cold starts short."""

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
