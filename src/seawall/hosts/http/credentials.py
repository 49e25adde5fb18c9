"""Credentials of an HTTP request: a bearer token, an API key, or none.

A request without a credential can only be admitted if nothing suggests that it comes from another
machine through a proxy, or from a web page of another origin in a local browser.
"""

import re
from collections.abc import Collection, Mapping

from seawall.errors import Unauthenticated
from seawall.identity.port import Anonymous, Bearer, Credential

__all__ = ["Client", "is_loopback", "read_credential"]

Client = tuple[str, int] | None

_PEERS = ("127.", "::ffff:127.")
_octet = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_loopback_host = re.compile(rf"(?:localhost|127(?:\.{_octet}){{3}}|\[::1\])(?::\d{{1,5}})?\Z")
_SAME_SITE = (b"same-origin", b"none")
# Headers that proxies, gateways and content delivery networks add.
_FORWARDING = frozenset(
    {
        b"akamai-origin-hop", b"cdn-loop", b"client-ip", b"do-connecting-ip", b"fastly-client",
        b"fly-client-ip", b"front-end-https", b"incap-client-ip", b"proxy-client-ip",
        b"surrogate-capability", b"true-client-ip", b"via", b"wl-proxy-client-ip", b"x-client-ip",
        b"x-cloud-trace-context", b"x-cluster-client-ip", b"x-host", b"x-nf-client-connection-ip",
        b"x-proxyuser-ip", b"x-remote-addr", b"x-remote-ip", b"x-rewrite-url", b"x-scheme",
        b"x-sucuri-clientip", b"x-url-scheme", b"x-varnish",
    }
)  # fmt: skip
_FORWARDING_PREFIXES = (
    b"forwarded", b"x-forwarded", b"x-real-", b"x-original-", b"x-envoy-", b"x-proxy-",
    b"x-akamai-", b"x-amz-cf-", b"x-amzn-", b"x-appengine-", b"x-arr-", b"x-azure-", b"x-vercel-",
    b"cf-", b"cloudfront-", b"fastly-", b"fly-forwarded-", b"ngrok-", b"tailscale-",
)  # fmt: skip


def read_credential(
    headers: Mapping[bytes, bytes],
    client: Client,
    *,
    http_version: str = "1.1",
    origins: Collection[bytes] = (),
) -> Credential:
    """Read the credential of a request.

    Args:
        headers: Names in lower case.
        client: Address of the peer.
        http_version: Of the request.
        origins: Other origins whose pages may make requests without a credential.

    Raises:
        Unauthenticated: The header has another scheme, or is not ASCII.
    """
    key, authorization = headers.get(b"x-api-key"), headers.get(b"authorization")
    if not key and not authorization:
        fault = _remote_reason(headers, client, http_version, origins)
        return Anonymous(fault, loopback=not fault)
    if not authorization:
        return Bearer(_ascii(key or b"", "X-API-Key"))
    try:
        secret = _bearer(authorization)
    except Unauthenticated:
        if not key:
            raise
        return Bearer(_ascii(key, "X-API-Key"))  # the other header is meant for another party
    # The key may be meant for a gateway on the way; a key that is not ASCII certainly is.
    return Bearer(secret, key.decode("ascii", "replace") if key else "")


def is_loopback(host: bytes) -> bool:
    """Whether a Host header, in lower case, names this machine."""
    return _loopback_host.match(host.decode("latin-1")) is not None


def _bearer(authorization: bytes) -> str:
    scheme, _, secret = _ascii(authorization, "Authorization").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("The Authorization header must be 'Bearer TOKEN'.")
    return secret.strip()


def _remote_reason(
    headers: Mapping[bytes, bytes], client: Client, http_version: str, origins: Collection[bytes]
) -> str:
    """Why a request does not count as one from this machine; empty if it does."""
    if client is None or not (client[0] == "::1" or client[0].startswith(_PEERS)):
        return "the connection does not come from this machine"
    host = headers.get(b"host", b"").lower()
    if not is_loopback(host):
        return "the Host header does not name this machine: it must be localhost or 127.0.0.1"
    if http_version not in ("1.1", "2"):
        return "HTTP/1.0 is used by proxies"
    for name in headers:
        if name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES):
            return f"the header {name[:64].decode('latin-1')} shows that it was forwarded"
    return _cross_origin_reason(headers, host, origins)


def _cross_origin_reason(
    headers: Mapping[bytes, bytes], host: bytes, origins: Collection[bytes]
) -> str:
    """The same for a request that a browser makes for a page."""
    origin = headers.get(b"origin")
    if origin is not None and origin in origins:
        return ""
    if origin is not None and origin.lower() not in (b"http://" + host, b"https://" + host):
        return "it was made by a web page of another origin"
    if headers.get(b"sec-fetch-site", b"none") not in _SAME_SITE:
        return "it was made by a web page of another site"
    return ""


def _ascii(value: bytes, header: str) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as error:
        raise Unauthenticated(f"The header {header} must be ASCII.") from error
