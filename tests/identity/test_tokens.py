import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws
from joserfc.errors import JoseError, SecurityWarning

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity.authenticator import build_authenticator
from seawall.identity.jwks import parse_key_set
from seawall.identity.port import Anonymous, Authenticator, Bearer
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal
from tests.issuer import AUDIENCE, ISSUER, Issuer, encoded, unsigned

URL = "https://issuer.example/keys"
_SIGNERS: dict[str, Issuer] = {}


class Provider:
    """Answers with the issuer's key set, and counts."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.fetched = 0
        self.down = False
        self.seconds = 0.0
        self.now = 1_000.0

    async def fetch(self, url: str, _deadline: float) -> bytes:
        assert url == URL
        self.fetched += 1
        await asyncio.sleep(self.seconds)
        if self.down:
            raise ConnectionError("the provider is down")
        return self.issuer.key_set()

    def authenticator(self, **settings: object) -> Authenticator:
        jwt = JwtSettings(
            **{"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": URL, **settings}  # type: ignore[arg-type]
        )
        return build_authenticator(
            IdentitySettings(jwt=jwt), self.fetch, monotonic=lambda: self.now
        )


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    issuer.add("curve", "ES256")
    issuer.add("edwards", "EdDSA")
    return issuer


@pytest.fixture
def provider(issuer: Issuer) -> Provider:
    return Provider(issuer)


def decide(authenticator: Authenticator, token: str) -> Principal:
    return asyncio.run(_soon(authenticator.authenticate(Bearer(token))))


async def _soon(awaited: Awaitable[Principal]) -> Principal:
    async with asyncio.timeout(5):
        return await awaited


@pytest.mark.parametrize("kid", ["one", "curve", "edwards"])
def test_each_algorithm(provider: Provider, kid: str) -> None:
    token = provider.issuer.token(kid=kid)
    assert decide(provider.authenticator(), token) == Principal("acme", "ada")


def test_both_names_of_the_edwards_curve(provider: Provider) -> None:
    key, _ = provider.issuer.keys["edwards"]
    head = encoded({"alg": "EdDSA", "kid": "edwards"})
    signed = f"{head}.{encoded(provider.issuer.claims())}"
    raw = key.get_op_key("sign").sign(signed.encode())  # type: ignore[call-arg,union-attr]
    token = f"{signed}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
    assert decide(provider.authenticator(), token).subject == "ada"


def test_what_usual_providers_put_in_headers_is_accepted(provider: Provider) -> None:
    for header in (
        {"typ": "at+jwt"},
        {"typ": "JWT", "x5t": "abc", "nonce": "n"},
        {"jku": "https://evil.example/keys"},  # read past, never followed
    ):
        assert (
            decide(provider.authenticator(), provider.issuer.token(header=header)).subject == "ada"
        )


def refused(provider: Provider, token: str, because: str = "", **settings: object) -> None:
    with pytest.raises(Unauthenticated) as caught:
        decide(provider.authenticator(**settings), token)
    assert because in str(caught.value)


def test_claims_that_do_not_hold(provider: Provider) -> None:
    now = time.time()
    token = provider.issuer.token
    refused(provider, token(exp=now - 31), "expired")
    refused(provider, token(nbf=now + 31), "not valid yet")
    refused(provider, token(iat=now + 300), "not valid yet")
    refused(provider, token(iss="https://other.example"), "issuer")
    refused(provider, token(aud="somebody-else"), "audience")
    refused(provider, token(aud=None), "audience")
    refused(provider, token(exp=None), "exp")
    refused(provider, token(exp="soon"), "exp")
    refused(provider, token(sub=None), "subject")
    refused(provider, token(sub="nul\0"), "subject")
    refused(provider, token(sub="x" * 257), "subject")
    refused(provider, token(tenant=None), "tenant")
    refused(provider, token(tenant={"a": 1}), "tenant")


def test_leeway_is_as_configured(provider: Provider) -> None:
    now = time.time()
    token = provider.issuer.token
    assert decide(provider.authenticator(), token(exp=now - 20, nbf=now + 20)).subject == "ada"
    refused(provider, token(exp=now - 20), "expired", leeway_seconds=0)


def test_audience_may_be_a_list_and_claims_nested(provider: Provider) -> None:
    made = provider.authenticator(tenant_claim="app.shop", subject_claim="https://x.example/id")
    token = provider.issuer.token(
        aud=["a", AUDIENCE],
        app={"shop": "north"},
        **{"https://x.example/id": "u1"},  # type: ignore[arg-type]  # a claim, not a header
    )
    assert decide(made, token) == Principal("north", "u1")


def test_forgeries(provider: Provider) -> None:
    issuer = provider.issuer
    claims = issuer.claims()
    good = issuer.token()
    head, payload, signature = good.split(".")
    for algorithm in ("none", "None", "NONE", "", "HS256", "RS512", "PS256", None, 5):
        refused(provider, unsigned({"alg": algorithm, "kid": "one"}, claims))
        refused(provider, unsigned({"alg": algorithm, "kid": "one"}, claims, signature))
    refused(provider, f"{head}.{encoded(issuer.claims('eve'))}.{signature}", "signature")
    refused(provider, f"{head}.{payload}.{signature[:-8]}AAAAAAAA", "signature")
    refused(provider, f"{head}.{payload}.", "")
    # The public key as the secret of a symmetric algorithm (CVE-2015-9235).
    key, _ = issuer.keys["one"]
    for secret in (key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode()):
        signed = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(claims)}"
        digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        forged = f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        refused(provider, forged, "algorithm")
    # Another's key under a known name, and a key brought along.
    other = Issuer()
    other.add("one")
    refused(provider, other.token(), "signature")
    own = other.keys["one"][0].as_dict(private=False)
    refused(provider, other.token(header={"jwk": own}), "signature")
    other.add("unknown")
    refused(provider, other.token(kid="unknown"), "not known")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "é.é.é",
        "x" * 9_000,
        "\0",
        unsigned({"alg": "RS256", "crit": None}, {}),
        unsigned({"alg": "RS256", "crit": ["exp"]}, {}),
        unsigned({"alg": "RS256", "b64": False}, {}),
        unsigned({"alg": "RS256", "kid": ["one"]}, {}),
        unsigned({"alg": "RS256", "kid": "one", "typ": "logout+jwt"}, {}),
        f"{base64.urlsafe_b64encode(b'[' * 3_000).decode()}.e30.e30",
        f"{encoded([])}.{encoded([])}.{encoded([])}",
    ],
)
def test_nonsense_is_refused_and_nothing_else(provider: Provider, token: str) -> None:
    refused(provider, token)


def test_a_crowd_at_the_start_costs_one_fetch(provider: Provider) -> None:
    provider.seconds = 0.05
    token = provider.issuer.token()

    async def crowd() -> list[Principal]:
        made = provider.authenticator()
        return await asyncio.gather(*(made.authenticate(Bearer(token)) for _ in range(500)))

    assert len(asyncio.run(crowd())) == 500
    assert provider.fetched == 1


def test_a_new_key_is_fetched_and_an_old_one_forgotten() -> None:
    rotating = Issuer()
    rotating.add("one")
    provider = Provider(rotating)
    before = rotating.token()

    async def rotate() -> None:
        made = provider.authenticator()
        await made.authenticate(Bearer(before))
        del rotating.keys["one"]
        rotating.add("two")
        provider.now += 11  # the cooldown is over
        await made.authenticate(Bearer(rotating.token(kid="two")))
        with pytest.raises(Unauthenticated):
            await made.authenticate(Bearer(before))

    asyncio.run(rotate())
    assert provider.fetched == 2


def test_invented_key_names_do_not_reach_the_provider(provider: Provider) -> None:
    async def flood() -> None:
        made = provider.authenticator()
        for number in range(200):
            invented = unsigned({"alg": "RS256", "kid": f"k{number}"}, {}, "AAAA")
            with pytest.raises(Unauthenticated):
                await made.authenticate(Bearer(invented))
            provider.now += 0.01

    asyncio.run(flood())
    assert provider.fetched == 1


def test_known_keys_outlive_the_provider_but_not_for_ever(provider: Provider) -> None:
    token = provider.issuer.token()

    async def outage() -> None:
        made = provider.authenticator(max_age_seconds=600, stale_seconds=1_000)
        await made.authenticate(Bearer(token))
        provider.down = True
        provider.now += 1_500
        await made.authenticate(Bearer(token))
        provider.now += 200
        with pytest.raises(IdentityUnavailable):
            await made.authenticate(Bearer(token))
        provider.down = False
        provider.now += 11
        await made.authenticate(Bearer(token))

    asyncio.run(outage())


def test_no_keys_yet_is_not_the_customers_fault(provider: Provider) -> None:
    provider.down = True
    with pytest.raises(IdentityUnavailable) as caught:
        decide(provider.authenticator(), provider.issuer.token())
    assert caught.value.retry_after


def test_one_who_leaves_does_not_take_the_fetch_with_them(provider: Provider) -> None:
    provider.seconds = 0.05
    token = Bearer(provider.issuer.token())

    async def leave() -> Principal:
        made = provider.authenticator()
        first = asyncio.create_task(made.authenticate(token))
        second = asyncio.create_task(made.authenticate(token))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    assert asyncio.run(leave()).subject == "ada"


def test_weak_and_foreign_keys_are_left_out() -> None:
    good = jwk.ECKey.generate_key("P-256", {"kid": "good"}).as_dict(private=False)
    listed: list[object] = [
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
        jwk.ECKey.generate_key("P-384", {"kid": "p384"}).as_dict(private=False),
        good | {"kid": "enc", "use": "enc"},
        good | {"kid": "alg", "alg": "RS256"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "off", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        17,
        good,
    ]
    usable = parse_key_set(json.dumps({"keys": listed}).encode())
    assert set(usable) == {"good", ""}
    for nonsense in (b"", b"[]", b"{}", b'{"keys": 1}', b"[" * 100_000, b"x" * (1 << 21)):
        with pytest.raises(ValueError, match=r"(?i)key set"):
            parse_key_set(nonsense)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_signatures_are_judged_as_another_library_judges_them(
    algorithm: str, data: st.DataObject
) -> None:
    issuer = _SIGNERS.setdefault(algorithm, Issuer())
    if not issuer.keys:
        issuer.add("one", algorithm)
    header, payload, signature = issuer.token().split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    match data.draw(st.sampled_from(["as it is", "flip", "cut", "longer", "any"])):
        case "flip":
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        case "longer":
            raw += data.draw(st.binary(min_size=1, max_size=8))
        case "any":
            raw[:] = data.draw(st.binary(max_size=300))
    token = f"{header}.{payload}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
    name = "Ed25519" if algorithm == "EdDSA" else algorithm
    try:
        jws.deserialize_compact(
            token, issuer.keys["one"][0], registry=jws.JWSRegistry(algorithms=[name])
        )
        theirs = True
    except (JoseError, ValueError):
        theirs = False
    check = parse_key_set(issuer.key_set())["one"].check
    assert check(bytes(raw), f"{header}.{payload}".encode()) is theirs


def test_weak_rsa_keys_are_left_out() -> None:
    with pytest.warns(SecurityWarning):
        weak = jwk.RSAKey.generate_key(1_024, {"kid": "weak"}).as_dict(private=False)
    assert parse_key_set(json.dumps({"keys": [weak]}).encode()) == {}


def test_an_rfc_7515_signature_is_verified() -> None:
    """RFC 7515 appendix A.3: its key and token; only time and claims are not ours."""
    key: dict[str, str | list[str]] = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    token = (
        "eyJhbGciOiJFUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ"
        ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    signing = parse_key_set(json.dumps({"keys": [key]}).encode())[""]
    assert signing.algorithms == {"ES256"}
    assert jws.deserialize_compact(token, jwk.import_key(key), algorithms=["ES256"]).payload

    async def fetch(_: str, __: float) -> bytes:
        return json.dumps({"keys": [key]}).encode()

    made = build_authenticator(
        IdentitySettings(
            jwt=JwtSettings(issuer="joe", jwks_url=URL, tenant="t", subject_claim="iss")
        ),
        fetch,
        clock=lambda: 1_300_819_379.0,
    )
    assert decide(made, token) == Principal("t", "joe")


def test_nobody_comes_in_unless_configured() -> None:
    async def fetch(_: str, __: float) -> bytes:
        raise AssertionError

    closed = build_authenticator(IdentitySettings(), fetch)
    local = build_authenticator(IdentitySettings(anonymous=True), fetch)

    async def knock(authenticator: Authenticator, loopback: bool) -> Principal:
        return await authenticator.authenticate(Anonymous(loopback=loopback))

    for authenticator, loopback in ((closed, True), (closed, False), (local, False)):
        with pytest.raises(Unauthenticated):
            asyncio.run(knock(authenticator, loopback))
    assert asyncio.run(knock(local, True)) == Principal("local", "anonymous")
    with pytest.raises(Unauthenticated):
        decide(closed, "a.b.c")
