import asyncio
import base64
import hashlib
import hmac
import json
import string
import time
import tracemalloc

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jws
from joserfc.errors import JoseError, SecurityWarning

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity import Anonymous, Authenticator, Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.jwks import parse_key_set
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal
from tests.issuer import AUDIENCE, ISSUER, Issuer, encoded, unsigned
from tests.properties import examples

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


async def verify(authenticator: Authenticator, token: str) -> Principal:
    async with asyncio.timeout(5):
        return await authenticator.authenticate(Bearer(token))


@pytest.mark.parametrize("kid", ["one", "curve", "edwards"])
async def test_each_algorithm(provider: Provider, kid: str) -> None:
    token = provider.issuer.token(kid=kid)
    assert await verify(provider.authenticator(), token) == Principal("acme", "ada")


async def test_both_algorithm_names_of_ed25519(provider: Provider) -> None:
    key, _ = provider.issuer.keys["edwards"]
    head = encoded({"alg": "EdDSA", "kid": "edwards"})
    signed = f"{head}.{encoded(provider.issuer.claims())}"
    raw = key.get_op_key("sign").sign(signed.encode())  # type: ignore[call-arg,union-attr]
    token = f"{signed}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"
    assert (await verify(provider.authenticator(), token)).subject == "ada"


async def test_common_extra_headers_are_accepted(provider: Provider) -> None:
    for header in (
        {"typ": "at+jwt"},
        {"typ": "JWT", "x5t": "abc", "nonce": "n"},
        {"jku": "https://evil.example/keys"},  # read past, never followed
    ):
        assert (
            await verify(provider.authenticator(), provider.issuer.token(header=header))
        ).subject == "ada"


async def refused(provider: Provider, token: str, because: str = "", **settings: object) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await verify(provider.authenticator(**settings), token)
    assert because in str(caught.value)


async def test_invalid_claims_are_refused(provider: Provider) -> None:
    now = time.time()
    token = provider.issuer.token
    await refused(provider, token(exp=now - 31), "expired")
    await refused(provider, token(nbf=now + 31), "not valid yet")
    await refused(provider, token(iat=now + 300), "not valid yet")
    await refused(provider, token(iss="https://other.example"), "issuer")
    await refused(provider, token(aud="another-audience"), "audience")
    await refused(provider, token(aud=None), "audience")
    await refused(provider, token(exp=None), "exp")
    await refused(provider, token(exp="soon"), "exp")
    await refused(provider, token(sub=None), "subject")
    await refused(provider, token(sub="nul\0"), "subject")
    await refused(provider, token(sub="x" * 257), "subject")
    await refused(provider, token(tenant=None), "tenant")
    await refused(provider, token(tenant={"a": 1}), "tenant")


async def test_the_leeway_is_configurable(provider: Provider) -> None:
    now = time.time()
    token = provider.issuer.token
    assert (
        await verify(provider.authenticator(), token(exp=now - 20, nbf=now + 20))
    ).subject == "ada"
    await refused(provider, token(exp=now - 20), "expired", leeway_seconds=0)


async def test_audience_may_be_a_list_and_claims_nested(provider: Provider) -> None:
    made = provider.authenticator(tenant_claim="app.shop", subject_claim="https://x.example/id")
    token = provider.issuer.token(
        aud=["a", AUDIENCE],
        app={"shop": "north"},
        **{"https://x.example/id": "u1"},  # type: ignore[arg-type]  # a claim, not a header
    )
    assert await verify(made, token) == Principal("north", "u1")


async def test_forged_tokens_are_refused(provider: Provider) -> None:
    issuer = provider.issuer
    claims = issuer.claims()
    good = issuer.token()
    head, payload, signature = good.split(".")
    for algorithm in ("none", "None", "NONE", "", "HS256", "RS512", "PS256", None, 5):
        await refused(provider, unsigned({"alg": algorithm, "kid": "one"}, claims))
        await refused(provider, unsigned({"alg": algorithm, "kid": "one"}, claims, signature))
    await refused(provider, f"{head}.{encoded(issuer.claims('eve'))}.{signature}", "signature")
    await refused(provider, f"{head}.{payload}.{signature[:-8]}AAAAAAAA", "signature")
    await refused(provider, f"{head}.{payload}.", "")
    # The public key as the secret of a symmetric algorithm (CVE-2015-9235).
    key, _ = issuer.keys["one"]
    for secret in (key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode()):
        signed = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(claims)}"
        digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        forged = f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        await refused(provider, forged, "algorithm")
    # Another's key under a known name, and a key brought along.
    other = Issuer()
    other.add("one")
    await refused(provider, other.token(), "signature")
    own = other.keys["one"][0].as_dict(private=False)
    await refused(provider, other.token(header={"jwk": own}), "signature")
    other.add("unknown")
    await refused(provider, other.token(kid="unknown"), "not known")


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
async def test_malformed_tokens_are_refused(provider: Provider, token: str) -> None:
    await refused(provider, token)


async def test_concurrent_first_tokens_share_one_fetch(provider: Provider) -> None:
    provider.seconds = 0.05
    token = provider.issuer.token()

    made = provider.authenticator()
    found = await asyncio.gather(*(made.authenticate(Bearer(token)) for _ in range(500)))
    assert len(found) == 500
    assert provider.fetched == 1


async def test_key_rotation_fetches_new_keys_and_drops_old_ones() -> None:
    rotating = Issuer()
    rotating.add("one")
    provider = Provider(rotating)
    before = rotating.token()

    made = provider.authenticator()
    await made.authenticate(Bearer(before))
    del rotating.keys["one"]
    rotating.add("two")
    provider.now += 11  # the cooldown is over
    await made.authenticate(Bearer(rotating.token(kid="two")))
    with pytest.raises(Unauthenticated):
        await made.authenticate(Bearer(before))
    assert provider.fetched == 2


async def test_a_token_that_was_accepted_is_checked_again(provider: Provider) -> None:
    """Its times, with each use, on the clock of the verifier."""
    now = time.time()
    times = [now]
    jwt = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=URL, leeway_seconds=0)
    made = build_authenticator(IdentitySettings(jwt=jwt), provider.fetch, clock=lambda: times[0])
    token = provider.issuer.token(exp=now + 60, nbf=now - 10, iat=now - 20)
    for _ in range(3):
        assert (await verify(made, token)).subject == "ada"
    for wrong, because in ((now + 60, "expired"), (now - 11, "not valid yet")):
        times[0] = wrong
        for _ in range(2):
            with pytest.raises(Unauthenticated, match=because):
                await verify(made, token)
    times[0] = now
    assert (await verify(made, token)).subject == "ada"


async def test_a_token_that_was_accepted_is_not_when_its_key_is_gone() -> None:
    provider = Provider(Issuer())
    provider.issuer.add("one")
    authenticator = provider.authenticator(max_age_seconds=600)
    token = provider.issuer.token()
    for _ in range(3):
        assert (await verify(authenticator, token)).subject == "ada"
    provider.issuer.add("one")  # another key under the same id
    assert (await verify(authenticator, token)).subject == "ada"  # the old keys are fresh
    provider.now += 601
    with pytest.raises(Unauthenticated, match="signature"):
        await verify(authenticator, token)
    del provider.issuer.keys["one"]
    provider.issuer.add("two")
    provider.now += 601
    with pytest.raises(Unauthenticated, match="key that is not known"):
        await verify(authenticator, token)


async def test_an_altered_token_is_not_the_one_that_was_accepted(provider: Provider) -> None:
    authenticator = provider.authenticator()
    token = provider.issuer.token()
    assert (await verify(authenticator, token)).subject == "ada"
    # The last digit has two bits of the signature, and four that are not used.
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    others = [token[:-1] + each for each in digits if each != token[-1]]
    for altered in (token + "A", token[:-5] + "AAAAA", f"{token} ", f"{token}=", *others):
        with pytest.raises(Unauthenticated):
            await verify(authenticator, altered)


async def test_only_so_many_accepted_tokens_are_remembered(provider: Provider) -> None:
    authenticator = provider.authenticator()
    tokens = [provider.issuer.token(f"u{number}", kid="edwards") for number in range(4_200)]
    await verify(authenticator, tokens[0])
    tracemalloc.start()
    for token in tokens:
        assert authenticator.authenticate_now(Bearer(token)) is not None
    kept = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(inclusive=True, filename_pattern="*/identity/*")]
    )
    tracemalloc.stop()
    assert sum(each.size for each in kept.statistics("filename")) < 4_096 * 600
    assert (await verify(authenticator, tokens[0])).subject == "u0"  # verified anew


async def test_unknown_key_ids_do_not_reach_the_provider(provider: Provider) -> None:
    made = provider.authenticator()
    for number in range(200):
        invented = unsigned({"alg": "RS256", "kid": f"k{number}"}, {}, "AAAA")
        with pytest.raises(Unauthenticated):
            await made.authenticate(Bearer(invented))
        provider.now += 0.01
    assert provider.fetched == 1


async def test_stale_keys_are_used_during_an_outage_for_a_limited_time(provider: Provider) -> None:
    token = provider.issuer.token()

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


async def test_an_unreachable_provider_is_503_not_401(provider: Provider) -> None:
    provider.down = True
    with pytest.raises(IdentityUnavailable) as caught:
        await verify(provider.authenticator(), provider.issuer.token())
    assert caught.value.retry_after


async def test_a_cancelled_caller_does_not_cancel_the_fetch_of_others(provider: Provider) -> None:
    provider.seconds = 0.05
    token = Bearer(provider.issuer.token())

    made = provider.authenticator()
    first = asyncio.create_task(made.authenticate(token))
    second = asyncio.create_task(made.authenticate(token))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).subject == "ada"


def test_weak_and_unsupported_keys_are_left_out() -> None:
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
@examples(20, 1_000)
def test_signature_checks_agree_with_joserfc(algorithm: str, data: st.DataObject) -> None:
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
    for light in (False, True):
        check = parse_key_set(issuer.key_set(), light=light)["one"].check
        assert check(bytes(raw), f"{header}.{payload}".encode()) is theirs


INFO = "3031300d060960864801650304020105000420"


@pytest.mark.parametrize(
    ("valid", "head", "info", "tail"),
    [
        (True, "0001", INFO, ""),
        (False, "0002", INFO, ""),
        (False, "0101", INFO, ""),
        (False, "0001", "302f300b0609608648016503040201" + "0420", ""),  # no parameters
        (False, "0001", "3021300906052b0e03021a05000414", ""),  # another algorithm
        (False, "0001", "", ""),
        (False, "0001", INFO, "00" * 40),  # Bleichenbacher's of 2006: less padding, more behind
    ],
)
def test_only_one_encoding_of_a_digest_is_a_signature(
    valid: bool, head: str, info: str, tail: str
) -> None:
    issuer = Issuer()
    issuer.add("one")
    secret = issuer.keys["one"][0].as_dict(private=True)
    modulus, exponent = (
        int.from_bytes(base64.urlsafe_b64decode(str(secret[each]) + "==")) for each in "nd"
    )
    end = bytes.fromhex(info) + hashlib.sha256(b"text").digest() + bytes.fromhex(tail)
    padded = bytes.fromhex(head) + b"\xff" * (256 - 3 - len(end)) + b"\0" + end
    signature = pow(int.from_bytes(padded), exponent, modulus).to_bytes(256)
    beyond = (int.from_bytes(signature) + modulus).to_bytes(257)[-256:]
    for light in (False, True):
        check = parse_key_set(issuer.key_set(), light=light)["one"].check
        assert check(signature, b"text") is valid
        assert not check(signature, b"texts")
        assert not check(beyond, b"text")
        assert not check(b"\0" + signature, b"text")


@given(data=st.data())
@examples(33, 1_000)
def test_without_the_library_the_same_encodings_are_signatures(data: st.DataObject) -> None:
    """Whatever the signer encodes, and whatever number is sent as the signature."""
    issuer = _SIGNERS.setdefault("RS256", Issuer())
    if not issuer.keys:
        issuer.add("one")
    secret = issuer.keys["one"][0].as_dict(private=True)
    modulus, p, q, dp, dq, inverse = (
        int.from_bytes(base64.urlsafe_b64decode(str(secret[each]) + "=="))
        for each in ("n", "p", "q", "dp", "dq", "qi")
    )
    end = bytearray(b"\0" + bytes.fromhex(INFO) + hashlib.sha256(b"text").digest())
    encoding = bytearray(b"\0\1" + b"\xff" * (254 - len(end)) + end)
    for _ in range(data.draw(st.integers(0, 3))):
        # Mostly at the begin, and in what stands before the digest.
        at = data.draw(st.sampled_from([0, 1, 2, 9, 10, *range(203, 226), 255]))
        match data.draw(st.sampled_from(["replace", "insert", "remove"])):
            case "replace":
                encoding[at] = data.draw(st.integers(0, 255))
            case "insert":
                encoding.insert(at, data.draw(st.sampled_from([0, 1, 5, 0x80, 0x81, 0xFF])))
                del encoding[data.draw(st.sampled_from([2, 256]))]
            case "remove":
                del encoding[at]
                encoding.insert(data.draw(st.sampled_from([2, 255])), 0xFF)
    by_q = pow(int.from_bytes(encoding), dq, q)
    number = by_q + (pow(int.from_bytes(encoding), dp, p) - by_q) * inverse % p * q
    number = data.draw(st.sampled_from([number] * 5 + [number + modulus, modulus - number, 0, 1]))
    size = data.draw(st.sampled_from([256] * 5 + [255, 257, 512]))
    signature = number.to_bytes(512)[-size:]
    usual, light = (
        parse_key_set(issuer.key_set(), light=light)["one"].check(signature, b"text")
        for light in (False, True)
    )
    assert light is usual


def test_unusual_rsa_keys_are_the_librarys_after_a_cold_start() -> None:
    for bits, at_once in ((2_048, True), (4_096, False)):
        made = rsa.generate_private_key(65_537, bits).public_key().public_numbers()
        assert parse_key_set(_rsa_set(made.n, made.e), light=True)[""].at_once is at_once
        assert not parse_key_set(_rsa_set(made.n, made.e))[""].at_once
    made = rsa.generate_private_key(65_537, 2_048).public_key().public_numbers()
    assert not parse_key_set(_rsa_set(made.n, 3), light=True)[""].at_once
    for number, exponent in ((made.n + 1, 65_537), (made.n, 2), (made.n, 1)):
        keys = _rsa_set(number, exponent)
        found = parse_key_set(keys, light=True)
        assert found.keys() == parse_key_set(keys).keys()
        assert not any(each.at_once for each in found.values())


@pytest.mark.parametrize(
    "members",
    [
        *({"use": "enc"}, {"alg": "RS512"}, {"alg": "PS256"}, {"crv": "P-256"}, {"kty": "oct"}),
        *({"key_ops": []}, {"key_ops": ["sign", "encrypt"]}),
    ],
)
def test_rsa_keys_for_other_purposes_are_left_out(members: dict[str, object]) -> None:
    made = rsa.generate_private_key(65_537, 2_048).public_key().public_numbers()
    for light in (False, True):
        assert parse_key_set(_rsa_set(made.n, made.e), light=light)
        assert not parse_key_set(_rsa_set(made.n, made.e, **members), light=light)


def _rsa_set(modulus: int, exponent: int, **others: object) -> bytes:
    members = {
        name: base64.urlsafe_b64encode(number.to_bytes(1_024).lstrip(b"\0")).decode()
        for name, number in (("n", modulus), ("e", exponent))
    }
    return json.dumps({"keys": [{"kty": "RSA", **members, **others}]}).encode()


def test_weak_rsa_keys_are_left_out() -> None:
    with pytest.warns(SecurityWarning):
        weak = jwk.RSAKey.generate_key(1_024, {"kid": "weak"}).as_dict(private=False)
    assert parse_key_set(json.dumps({"keys": [weak]}).encode()) == {}


async def test_an_rfc_7515_signature_is_verified() -> None:
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
    assert await verify(made, token) == Principal("t", "joe")


async def test_every_credential_is_refused_unless_configured() -> None:
    async def fetch(_: str, __: float) -> bytes:
        raise AssertionError

    closed = build_authenticator(IdentitySettings(), fetch)
    local = build_authenticator(IdentitySettings(anonymous=True), fetch)

    for authenticator, loopback in ((closed, True), (closed, False), (local, False)):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(Anonymous(loopback=loopback))
    found = await local.authenticate(Anonymous(loopback=True))
    assert found == Principal("local", "anonymous")
    with pytest.raises(Unauthenticated):
        await verify(closed, "a.b.c")
