"""Signatures against AWS's own vectors, and against botocore's signer."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from seawall.aws import Credentials, Signer
from tests.properties import examples

# AWS's Signature Version 4 test suite, each request with its published signature. Written down
# here in our own form from the files that AWS distributed as aws-sig-v4-test-suite.
VECTORS = msgspec.json.decode((Path(__file__).parent / "signature_vectors.json").read_bytes())
EXAMPLE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
AT = 1_440_938_160.0  # 2015-08-30T12:36:00Z


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_published_vectors(vector: dict[str, object]) -> None:
    signer = Signer("us-east-1", "service")
    signed = signer.sign(
        msgspec.structs.replace(EXAMPLE, token=vector["token"]),
        method=str(vector["method"]),
        path=str(vector["path"]),
        query=quote(str(vector["query"]), safe="=&~"),  # as it is sent
        headers=[(name, value) for name, value in vector["headers"]],  # type: ignore[attr-defined]
        body=str(vector["body"]).encode(),
        at=AT,
    )
    assert dict(signed)[b"authorization"].decode() == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={vector['signed']}, Signature={vector['signature']}"
    )


visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
segments = st.lists(st.text("abcXYZ019-._~:%25 ", max_size=8), max_size=4)
pairs = st.lists(st.tuples(st.text("abAB12-_.~/: ", min_size=1), visible), max_size=4)


@examples(66, 1_000)
@given(
    method=st.sampled_from(["GET", "POST", "PUT"]),
    parts=segments,
    query=pairs,
    body=st.binary(max_size=200),
    extra=st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}", fullmatch=True), visible | st.text(" ab", max_size=9)
    ),
    token=st.sampled_from(["", "token+/=="]),
    service=st.sampled_from(["dynamodb", "bedrock", "sts"]),
    region=st.sampled_from(["eu-west-1", "cn-north-1"]),
    when=st.integers(1_600_000_000, 1_900_000_000),
)
def test_same_as_botocore(  # noqa: PLR0917 - by name, as given above
    method: str,
    parts: list[str],
    query: list[tuple[str, str]],
    body: bytes,
    extra: dict[str, str],
    token: str,
    service: str,
    region: str,
    when: int,
) -> None:
    path = "/" + "/".join(quote(part, safe="~") for part in parts)
    sent = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    credentials = Credentials("AKID", "secret", token)
    headers = [("host", "example.com"), *((name, value.strip()) for name, value in extra.items())]
    ours = Signer(region, service).sign(
        credentials, method=method, path=path, query=sent, headers=headers, body=body, at=when
    )
    theirs = AWSRequest(
        method,
        f"https://example.com{path}" + (f"?{sent}" if sent else ""),
        headers=dict(headers),
        data=body,
    )
    keys = SimpleNamespace(access_key="AKID", secret_key="secret", token=token or None)
    sign_as_of(SigV4Auth(keys, service, region), theirs, when)
    for name, value in ours:
        assert theirs.headers[name.decode()] == value.decode()


def sign_as_of(signer: SigV4Auth, request: AWSRequest, when: int) -> None:
    """botocore's `add_auth`, which signs as of now, for any moment."""
    request.context["timestamp"] = datetime.fromtimestamp(when, UTC).strftime("%Y%m%dT%H%M%SZ")
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    to_sign = signer.string_to_sign(request, canonical)
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))


def test_the_key_follows_day_and_secret() -> None:
    signer = Signer("eu-west-1", "dynamodb")

    def authorization(credentials: Credentials, at: float) -> bytes:
        signed = signer.sign(credentials, method="POST", headers=[], body=b"", at=at)
        return dict(signed)[b"authorization"]

    first = authorization(EXAMPLE, AT)
    assert authorization(EXAMPLE, AT + 86_400) != first
    assert authorization(Credentials("AKIDEXAMPLE", "other"), AT) != first
    assert authorization(EXAMPLE, AT) == first


def test_secrets_are_not_shown() -> None:
    shown = Credentials("AKID", "the-secret", "the-token", 5.0)
    for text in (repr(shown), str(shown), f"{shown}", str(shown.__rich_repr__())):
        assert "AKID" in text
        assert "the-secret" not in text
        assert "the-token" not in text
