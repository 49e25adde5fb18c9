"""The way out to one upstream of tools over HTTP: to configured addresses only.

Adds credentials, keeps redirects within the configured addresses, and maps errors of the transport
to `UpstreamFault`.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote_to_bytes, urljoin

from msgspec import structs

from seawall.identity.outbound.port import CredentialsUnavailable, Headers, OutboundCredentials
from seawall.tools.port import ToolContext
from seawall.tools.repeated_secrets import without_secrets
from seawall.tools.upstream import UpstreamFault
from seawall.transport.connection import (
    BodyTooLong,
    ConnectFailed,
    ConnectTimeout,
    TransportError,
    TransportTimeout,
)
from seawall.transport.http_client import (
    BufferedResponse,
    Endpoint,
    Header,
    HttpClient,
    Origin,
    Response,
)

__all__ = ["AnswerTooLong", "RemoteHttp", "status_fault"]

_log = logging.getLogger("seawall.tools")
_MAX_REDIRECTS = 3
_MAX_RENEWALS = 2  # of credentials: a token, and then one with the scopes that are asked for
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE = frozenset({"GET", "HEAD"})
_DRAIN_SECONDS = 0.2


class RemoteHttp:
    """Requests to one upstream.

    Attributes:
        client: Its connections, which it shares with no other upstream.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        allowed: Sequence[str],
        credentials: OutboundCredentials,
        headers: Sequence[Header] = (),
        session_header: str = "",
        max_response_bytes: int = 1 << 20,
    ) -> None:
        """Create it without connections.

        Args:
            client: Owned from now on.
            allowed: URLs whose origins may be called.
            credentials: Owned from now on.
            headers: Sent with every request.
            session_header: Carries the id of the session; empty for none.
            max_response_bytes: Of an answer.
        """
        self.client = client
        self._allowed = frozenset(Endpoint.parse(each).origin for each in allowed)
        self._credentials = credentials
        self._headers = tuple(headers)
        self._session_header = session_header.lower().encode()
        self._limit = max_response_bytes

    def allow(self, url: str) -> None:
        """Allow the origin of a URL, which the caller has checked."""
        self._allowed |= {Endpoint.parse(url).origin}

    async def close(self) -> None:
        """Close connections and credentials."""
        await self.client.close()
        await self._credentials.close()

    async def connect(self, url: str, *, deadline: float) -> None:
        """Open an idle connection, without a request.

        Args:
            url: Its origin is connected to.
            deadline: In seconds on the event loop's clock.

        Raises:
            UpstreamFault: There is no connection.
        """
        try:
            await self.client.warm(Endpoint.parse(url), 1, deadline=deadline)
        except TransportError as error:
            raise _fault(error) from error

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        context: ToolContext | None,
        deadline: float,
        limit: int | None = None,
        effect: bool = False,
    ) -> BufferedResponse:
        """Send a request and read the complete answer.

        Args:
            method: The HTTP method.
            url: Absolute.
            headers: Without credentials.
            body: The request body.
            context: The turn on whose behalf; None for none.
            deadline: In seconds on the event loop's clock.
            limit: Bytes of the answer's body; None for the configured bound.
            effect: Whether it changes something whatever its method is: it is not sent again on
                another connection, and no redirect is followed.

        Raises:
            AnswerTooLong: The answer exceeds the bound.
            UpstreamFault: There is no answer. An answer of any status is returned.
        """
        try:
            async with self.stream(
                method,
                url,
                headers=headers,
                body=body,
                context=context,
                deadline=deadline,
                effect=effect,
            ) as (response, own):
                try:
                    content = await response.read(limit=limit or self._limit)
                except BodyTooLong as error:
                    raise AnswerTooLong(response.status, response.headers, str(error)) from error
                content = without_secrets(content, own)
                return BufferedResponse(response.status, response.headers, content)
        except TransportError as error:
            raise _fault(error) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        context: ToolContext | None,
        deadline: float,
        effect: bool = False,
    ) -> AsyncGenerator[tuple[Response, Headers], None]:
        """Send a request; the answer is read inside the block.

        Args:
            method: See `request`.
            url: See `request`.
            headers: See `request`.
            body: See `request`.
            context: See `request`.
            deadline: See `request`.
            effect: See `request`.

        Yields:
            The answer, and the credentials with which it was asked for: see `without_secrets`.

        Raises:
            UpstreamFault: There is no answer.
            TransportError: The answer broke off while it was read inside the block.
        """
        principal = context.principal if context is not None else None
        token = context.caller_token if context is not None else ""
        common = [*self._headers, *headers]
        if context is not None and context.traceparent:
            common.append((b"traceparent", context.traceparent.encode()))
        if context is not None and self._session_header:
            common.append((self._session_header, quote(context.session, safe="").encode()))
        safe = method in _SAFE and not effect
        redirects, renewals = 0, 0
        while True:
            endpoint = self._checked(url)
            try:
                own = await self._credentials.headers(principal, token, deadline=deadline)
            except CredentialsUnavailable as error:
                raise UpstreamFault("refused", error.detail, sent=False) from error
            endpoint, carried = _with_query(endpoint, own)
            exchange = self.client.stream(
                method,
                endpoint,
                headers=_last_of_each([*common, *carried]),
                body=body,
                deadline=deadline,
                replay=safe,
            )
            try:
                response = await exchange.__aenter__()
            except TransportError as error:
                raise _fault(error) from error
            try:
                challenge = response.headers.get("www-authenticate", "")
                refused = response.status == 401 or (
                    response.status == 403 and "insufficient_scope" in challenge
                )
                if (
                    refused
                    and renewals < _MAX_RENEWALS
                    and self._credentials.rejected(principal, token, own, challenge)
                ):
                    renewals += 1
                    await response.drain(seconds=_DRAIN_SECONDS)
                    continue
                location = response.headers.get("location", "")
                if response.status in _REDIRECTS and location and safe:
                    redirects += 1
                    if redirects > _MAX_REDIRECTS:
                        raise UpstreamFault("failed", "it redirects in a circle")
                    url = _redirected(url, location, own)
                    await response.drain(seconds=_DRAIN_SECONDS)
                    continue
                yield response, own
                return
            finally:
                await exchange.__aexit__(None, None, None)

    def _checked(self, url: str) -> Endpoint:
        """The endpoint of a URL, if it may be called."""
        try:
            endpoint = Endpoint.parse(url)
        except (ValueError, UnicodeEncodeError) as error:
            raise UpstreamFault("failed", f"not a usable address: {error}", sent=False) from error
        if endpoint.origin not in self._allowed:
            raise UpstreamFault(
                "failed", f"{_shown(endpoint.origin)} is not a configured address", sent=False
            )
        return endpoint


class AnswerTooLong(UpstreamFault):
    """An answer exceeds the bound of its size.

    Attributes:
        status: Its HTTP status.
        headers: By lower-case name.
    """

    def __init__(self, status: int, headers: dict[str, str], detail: str) -> None:
        super().__init__("broken", f"status {status}: the answer is too long: {detail}")
        self.status = status
        self.headers = headers


def status_fault(response: BufferedResponse | Response) -> UpstreamFault | None:
    """The fault that a status stands for; None for a status that says something of the request.

    Args:
        response: The answer.
    """
    status = response.status
    after = _seconds(response.headers.get("retry-after", ""))
    # 503 is also what proxies say of a connection that was lost after the request was sent.
    if status == 429 or (status == 503 and after is not None):
        return UpstreamFault("throttled", f"status {status}", retry_after=after)
    if status in (401, 407) or (
        status == 403 and "insufficient_scope" in response.headers.get("www-authenticate", "")
    ):
        return UpstreamFault("refused", f"status {status}: no credentials, or not accepted")
    if status >= 500:
        return UpstreamFault("failed", f"status {status}")
    return None


def _seconds(value: str) -> float | None:
    """`Retry-After` in seconds; None for none. Dates are not read: clocks differ."""
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else None


def _fault(error: TransportError) -> UpstreamFault:
    if isinstance(error, ConnectFailed | ConnectTimeout):
        return UpstreamFault("unreachable", str(error))
    if isinstance(error, TransportTimeout):
        return UpstreamFault("late", str(error))
    return UpstreamFault("broken", str(error))


def _last_of_each(headers: Sequence[Header]) -> list[Header]:
    """Headers without those that later ones replace: a model's never stand beside credentials.

    Cookies are one header; of two with the same name, the later one is sent.
    """
    kept = {name.lower(): (name, value) for name, value in headers}
    cookies = [value for name, value in headers if name.lower() == b"cookie"]
    if len(cookies) > 1:
        pairs = (each.strip() for value in cookies for each in value.split(b";"))
        last = {each.partition(b"=")[0]: each for each in pairs if each}
        kept[b"cookie"] = (b"cookie", b"; ".join(last.values()))
    return list(kept.values())


def _with_query(endpoint: Endpoint, own: Headers) -> tuple[Endpoint, Headers]:
    """An endpoint with the credentials that belong into its query, and the others."""
    mine = {name[1:]: value for name, value in own if name.startswith(b"?")}
    if not mine:
        return endpoint, own
    path, _, query = endpoint.target.partition(b"?")
    kept = [each for each in query.split(b"&") if each and _name_of(each) not in mine]
    kept += [
        f"{quote(name, safe='')}={quote(value, safe='')}".encode() for name, value in mine.items()
    ]
    endpoint = structs.replace(endpoint, target=path + b"?" + b"&".join(kept))
    return endpoint, tuple(each for each in own if not each[0].startswith(b"?"))


def _name_of(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))


def _redirected(url: str, location: str, own: Headers) -> str:
    """Where a redirect leads; a server may repeat a secret, which no error must show."""
    try:
        url = urljoin(url, location)
    except ValueError:
        raise UpstreamFault("failed", "it redirects to nowhere") from None
    return without_secrets(url.encode("utf-8", "replace"), own).decode()


def _shown(origin: Origin) -> str:
    return f"{'https' if origin.secure else 'http'}://{origin.host}:{origin.port}"
