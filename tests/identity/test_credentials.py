"""Which of several credentials in a request counts."""

import hashlib

import pytest

from seawall.errors import Unauthenticated
from seawall.hosts.http.exchange import read_credential
from seawall.identity import Anonymous
from seawall.identity.authenticator import build_authenticator
from seawall.identity.settings import ApiKeySettings, IdentitySettings, JwtSettings
from seawall.turn import Principal
from tests.issuer import AUDIENCE, ISSUER, Issuer

KEY = b"sw_ours"
ADA, SHOP = Principal("acme", "ada"), Principal("acme", "shop")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


async def authenticated(issuer: Issuer, headers: dict[bytes, bytes]) -> Principal | None:
    """Return the authenticated principal; None for a refusal."""

    async def fetch(_: str, __: float) -> bytes:
        return issuer.key_set()

    digest = hashlib.sha256(KEY).hexdigest()
    authenticator = build_authenticator(
        IdentitySettings(
            jwt=JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://i.example/keys"),
            api_keys=(ApiKeySettings(sha256=digest, tenant="acme", subject="shop"),),
        ),
        fetch,
    )
    try:
        credential = read_credential(headers, ("127.0.0.1", 1))
        claimed = authenticator.unverified_principal(credential)
        principal = await authenticator.authenticate(credential)
    except Unauthenticated:
        return None
    assert claimed == principal
    return principal


@pytest.mark.parametrize("key", [b"another-gateway's", b"sw_another", "ü".encode(), b"a.b.c", b" "])
async def test_a_token_beside_another_gateways_key_is_accepted(issuer: Issuer, key: bytes) -> None:
    bearer = f"Bearer {issuer.token()}".encode()
    assert await authenticated(issuer, {b"x-api-key": key, b"authorization": bearer}) == ADA


@pytest.mark.parametrize(
    "other", [b"Basic YTpi", b"Bearer foreign", b"Bearer a.b.c", b"\xff", b"x"]
)
async def test_a_key_beside_another_gateways_authorization_is_accepted(
    issuer: Issuer, other: bytes
) -> None:
    assert await authenticated(issuer, {b"x-api-key": KEY, b"authorization": other}) == SHOP


async def test_a_single_credential_is_accepted_in_either_header(issuer: Issuer) -> None:
    token = issuer.token().encode()
    assert await authenticated(issuer, {b"x-api-key": KEY}) == SHOP
    assert await authenticated(issuer, {b"authorization": b"Bearer " + KEY}) == SHOP
    assert await authenticated(issuer, {b"x-api-key": token}) == ADA
    assert await authenticated(issuer, {b"authorization": b"bearer  " + token}) == ADA


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"x-api-key": b"foreign"},
        {b"x-api-key": "ü".encode()},
        {b"authorization": b"Bearer sw_foreign", b"x-api-key": b"foreign"},
        {b"authorization": b"Basic YTpi", b"x-api-key": b"foreign"},
        {b"authorization": b"Basic YTpi"},
        {b"authorization": b"Bearer"},
    ],
)
async def test_without_a_valid_credential_the_request_is_refused(
    issuer: Issuer, headers: dict[bytes, bytes]
) -> None:
    assert await authenticated(issuer, headers) is None


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::1:2", False),
        ("::10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("1.127.0.0", False),
    ],
)
def test_only_loopback_addresses_count_as_local(address: str, local: bool) -> None:
    credential = read_credential({b"host": b"localhost"}, (address, 1))
    assert isinstance(credential, Anonymous)
    assert credential.loopback is local
