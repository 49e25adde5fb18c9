"""Credential sources, with real files and HTTP servers that behave as AWS's."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import pytest
from botocore.loaders import create_loader
from botocore.regions import EndpointResolver

from seawall.aws import (
    Credentials,
    CredentialSource,
    CredentialsUnavailable,
    EnvironmentSource,
    NoCredentials,
    endpoint_url,
    find_region,
)
from seawall.aws.container import ContainerSource
from seawall.aws.credential_cache import CredentialChain, default_chain
from seawall.aws.instance_metadata import InstanceMetadataSource
from seawall.aws.profile import Profiles, ProfileSource
from seawall.aws.web_identity import WebIdentitySource
from seawall.transport.http_client import HttpClient
from tests.faulty_server import DROP, HANG, Answer, FaultyServer, Handler, Request, script, serving

ISSUED = Answer(
    body=msgspec.json.encode(
        {
            "Code": "Success",
            "AccessKeyId": "ASIA1",
            "SecretAccessKey": "issued-secret",
            "Token": "issued-token",
            "Expiration": "2026-01-02T03:04:05Z",
        }
    )
)
CREDENTIALS = Credentials("ASIA1", "issued-secret", "issued-token", 1_767_323_045.0)
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}


async def fetch(source: CredentialSource, seconds: float = 20.0) -> Credentials | None:
    return await source.fetch(deadline=asyncio.get_running_loop().time() + seconds)


async def unavailable(source: CredentialSource) -> str:
    with pytest.raises(CredentialsUnavailable) as caught:
        await fetch(source)
    assert "secret" not in str(caught.value).replace("aws_secret_access_key", "")
    return str(caught.value)


# The environment and the shared files.


async def test_environment() -> None:
    assert await fetch(EnvironmentSource({})) is None
    assert await fetch(EnvironmentSource(KEYS)) == Credentials("AKID", "secret")
    with_token = EnvironmentSource(KEYS | {"AWS_SESSION_TOKEN": "t"})
    assert await fetch(with_token) == Credentials("AKID", "secret", "t")
    with pytest.raises(CredentialsUnavailable, match="AWS_SECRET_ACCESS_KEY"):
        await fetch(EnvironmentSource({"AWS_ACCESS_KEY_ID": "AKID"}))


def home(folder: Path, credentials: str = "", config: str = "") -> dict[str, str]:
    (folder / ".aws").mkdir(exist_ok=True)
    if credentials:
        (folder / ".aws" / "credentials").write_text(credentials)
    if config:
        (folder / ".aws" / "config").write_text(config)
    return {"HOME": str(folder)}


async def profile(environment: Mapping[str, str]) -> Credentials | None:
    return await fetch(ProfileSource(Profiles(environment)))


FILE = """
[default]
aws_access_key_id = AKID1
aws_secret_access_key = with%percent

[other]
aws_access_key_id=AKID2
aws_secret_access_key=two
aws_session_token=token
"""


async def test_shared_credentials(tmp_path: Path) -> None:
    environment = home(tmp_path, FILE)
    assert await profile(environment) == Credentials("AKID1", "with%percent")
    other = Credentials("AKID2", "two", "token")
    assert await profile(environment | {"AWS_PROFILE": "other"}) == other
    moved = tmp_path / "elsewhere"
    moved.write_text(FILE)
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(moved), "AWS_PROFILE": "other"}
    assert await profile(variables) == other


async def test_config_file(tmp_path: Path) -> None:
    config = "[profile other]\nregion=eu-north-1\naws_access_key_id=A\naws_secret_access_key=B\n"
    environment = home(tmp_path, config=config) | {"AWS_PROFILE": "other"}
    assert await profile(environment) == Credentials("A", "B")
    assert find_region(environment) == "eu-north-1"
    assert await profile(home(tmp_path)) is None
    with_default = home(tmp_path, config="[default]\nregion = us-east-2\n")
    assert find_region(with_default) == "us-east-2"
    assert await profile(with_default) is None


async def test_no_files(tmp_path: Path) -> None:
    assert await profile({}) is None
    assert await profile({"HOME": str(tmp_path)}) is None
    missing = ProfileSource(Profiles({"HOME": str(tmp_path), "AWS_PROFILE": "other"}))
    assert "other" in await unavailable(missing)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[default]\nrole_arn=a\nsource_profile=b\n", "role assumption is not supported"),
        ("[default]\nsso_session=a\n", "single sign-on is not supported"),
        ("[default]\ncredential_process=a\n", "credential processes is not supported"),
        ("[default]\naws_access_key_id=a\n", "aws_secret_access_key is missing"),
        ("[default]\nthe-secret\n", ":2: not a file of profiles"),
        ("the-secret\n", ":1: not a file of profiles"),
    ],
)
async def test_profiles_that_cannot_be_used(tmp_path: Path, config: str, said: str) -> None:
    source = ProfileSource(Profiles(home(tmp_path, config=config)))
    assert said.replace("processes is", "processes is") in await unavailable(source)


def test_region(tmp_path: Path) -> None:
    environment = home(tmp_path, config="[default]\nregion=us-west-1\n")
    assert find_region({}) == ""
    assert find_region(environment) == "us-west-1"
    environment |= {"AWS_DEFAULT_REGION": "us-west-2"}
    assert find_region(environment) == "us-west-2"
    environment |= {"AWS_REGION": "eu-west-1"}
    assert find_region(environment) == "eu-west-1"
    assert find_region(environment, "eu-west-3") == "eu-west-3"
    for wrong in ("evil.example/", "eu west", "EU-WEST-1", "eu-west-1.evil"):
        with pytest.raises(ValueError, match="region"):
            find_region({"AWS_REGION": wrong})
        with pytest.raises(ValueError, match="region"):
            endpoint_url("sts", wrong)


def test_endpoints_are_botocores() -> None:
    resolver = EndpointResolver(create_loader().load_data("endpoints"))
    for partition in resolver.get_available_partitions():
        for region in resolver.get_available_endpoints("dynamodb", partition):
            theirs = resolver.construct_endpoint("dynamodb", region)
            assert endpoint_url("dynamodb", region) == f"https://{theirs['hostname']}"


# The container's endpoint.


async def container(
    handler: Handler, environment: Mapping[str, str], times: int = 1
) -> tuple[list[Credentials | None], FaultyServer]:
    async with serving(handler) as server:
        http = HttpClient()
        placed = {name: value.format(url=server.url) for name, value in environment.items()}
        source = ContainerSource(placed, http, base_url=server.url)
        try:
            return [await fetch(source) for _ in range(times)], server
        finally:
            await http.close()


async def test_container_relative_uri() -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1?a=b"}
    found, server = await container(script(ISSUED), environment)
    assert found == [CREDENTIALS]
    assert server.requests[0].target == "/v2/credentials/1?a=b"
    assert "authorization" not in server.requests[0].headers


async def test_container_full_uri_with_a_token() -> None:
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "the-token",
    }
    found, server = await container(script(ISSUED), environment)
    assert found == [CREDENTIALS]
    assert server.requests[0].headers["authorization"] == "the-token"


async def test_pod_identity_rereads_its_token(tmp_path: Path) -> None:
    token = tmp_path / "eks-pod-identity-token"
    token.write_text("one\n")

    def handler(_: Request) -> Answer:
        token.write_text("two")
        return ISSUED

    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not this",
    }
    found, server = await container(handler, environment, times=2)
    assert found == [CREDENTIALS, CREDENTIALS]
    assert [each.headers["authorization"] for each in server.requests] == ["one", "two"]


@pytest.mark.parametrize("fault", [Answer(503), Answer(429), DROP, Answer(cut=20)])
async def test_container_is_retried(fault: Answer) -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/c"}
    found, server = await container(script(fault, ISSUED), environment)
    assert found == [CREDENTIALS]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(403, b"the-secret"), "status 403"),
        (Answer(body=b'{"SecretAccessKey": "the-secret"}'), "did not return credentials"),
        (Answer(body=b"the-secret"), "did not return credentials"),
        (Answer(body=ISSUED.body.replace(b"2026-", b"soon-")), "did not return credentials"),
    ],
)
async def test_container_errors(answer: Answer, said: str) -> None:
    with pytest.raises(CredentialsUnavailable, match=said) as caught:
        await container(script(answer), {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/c"})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/credentials",
        "http://169.254.169.254/credentials",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "http://[fd00:ec2::24]/",
    ],
)
async def test_container_hosts_that_are_not_allowed(url: str) -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}
    assert "FULL_URI" in await unavailable(ContainerSource(environment, HttpClient()))


async def test_a_token_that_is_no_header_value(tmp_path: Path) -> None:
    environment = {
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/c",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nx-injected: b",
    }
    assert "header value" in await unavailable(ContainerSource(environment, HttpClient()))
    environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(tmp_path / "missing")
    assert "FileNotFoundError" in await unavailable(ContainerSource(environment, HttpClient()))


# A web identity.

STS_ANSWER = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Credentials>
      <SessionToken>issued-token</SessionToken>
      <SecretAccessKey>issued-secret</SecretAccessKey>
      <Expiration>2026-01-02T03:04:05Z</Expiration>
      <AccessKeyId>ASIA1</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
STS_REFUSAL = b"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>
<Type>Sender</Type><Code>%s</Code><Message>m</Message></Error></ErrorResponse>"""
ROLE = "arn:aws:iam::123456789012:role/sessions"


async def web_identity(
    handler: Handler, environment: Mapping[str, str]
) -> tuple[Credentials | None, FaultyServer]:
    async with serving(handler) as server:
        http = HttpClient()
        source = WebIdentitySource(environment, http, region="", base_url=server.url)
        try:
            return await fetch(source), server
        finally:
            await http.close()


def service_account(folder: Path) -> dict[str, str]:
    (folder / "token").write_text("header.payload.signature")
    return {"AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"), "AWS_ROLE_ARN": ROLE}


async def test_web_identity(tmp_path: Path) -> None:
    environment = service_account(tmp_path) | {"AWS_ROLE_SESSION_NAME": "pod-7"}
    found, server = await web_identity(script(Answer(body=STS_ANSWER)), environment)
    assert found == CREDENTIALS
    (sent,) = server.requests
    assert "authorization" not in sent.headers
    assert parse_qs(sent.body.decode()) == {
        "Action": ["AssumeRoleWithWebIdentity"],
        "Version": ["2011-06-15"],
        "RoleArn": [ROLE],
        "RoleSessionName": ["pod-7"],
        "WebIdentityToken": ["header.payload.signature"],
    }


async def test_web_identity_of_a_profile(tmp_path: Path) -> None:
    token = service_account(tmp_path)["AWS_WEB_IDENTITY_TOKEN_FILE"]
    config = f"[default]\nrole_arn={ROLE}\nweb_identity_token_file={token}\n"
    found, _ = await web_identity(script(Answer(body=STS_ANSWER)), home(tmp_path, config=config))
    assert found == CREDENTIALS


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (Answer(500), 2),
        (DROP, 2),
        (Answer(400, STS_REFUSAL % b"IDPCommunicationError"), 2),
        (Answer(400, STS_REFUSAL % b"InvalidIdentityToken"), 2),
    ],
)
async def test_sts_is_retried(tmp_path: Path, fault: Answer, asked: int) -> None:
    answers = script(fault, Answer(body=STS_ANSWER))
    found, server = await web_identity(answers, service_account(tmp_path))
    assert found == CREDENTIALS
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(403, STS_REFUSAL % b"AccessDenied"), "AccessDenied"),
        (Answer(400, STS_REFUSAL % b"ExpiredTokenException"), "ExpiredTokenException"),
        (Answer(body=b"<a><b>"), "did not return credentials"),
        (Answer(body=b"\0\xff"), "did not return credentials"),
    ],
)
async def test_sts_errors(tmp_path: Path, answer: Answer, said: str) -> None:
    with pytest.raises(CredentialsUnavailable, match=said):
        await web_identity(script(answer), service_account(tmp_path))


async def test_web_identity_that_is_half_configured(tmp_path: Path) -> None:
    environment = service_account(tmp_path)
    no_region = WebIdentitySource(environment, HttpClient(), region="")
    assert "AWS_REGION" in await unavailable(no_region)
    del environment["AWS_ROLE_ARN"]
    source = WebIdentitySource(environment, HttpClient(), region="eu-west-1")
    assert "AWS_ROLE_ARN" in await unavailable(source)


# Instance metadata.


async def instance(
    handler: Handler, environment: Mapping[str, str] | None = None
) -> tuple[Credentials | None, FaultyServer]:
    async with serving(handler) as server:
        http = HttpClient()
        source = InstanceMetadataSource(environment or {}, http, base_url=server.url)
        try:
            return await fetch(source), server
        finally:
            await http.close()


def metadata(request: Request) -> Answer:
    """Version 2 as EC2 speaks it."""
    if request.method == "PUT":
        assert request.target == "/latest/api/token"
        assert request.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "300"
        return Answer(body=b"proof")
    if request.headers.get("x-aws-ec2-metadata-token") != "proof":
        return Answer(401)
    root = "/latest/meta-data/iam/security-credentials/"
    return {root: Answer(body=b"the-role"), f"{root}the-role": ISSUED}[request.target]


async def test_instance_metadata() -> None:
    found, server = await instance(metadata)
    assert found == CREDENTIALS
    assert [each.method for each in server.requests] == ["PUT", "GET", "GET"]


@pytest.mark.parametrize("answer", [HANG, DROP, Answer(403), Answer(404), Answer(405)])
async def test_no_instance_metadata(answer: Answer) -> None:
    assert (await instance(script(answer)))[0] is None


async def test_an_instance_without_a_role() -> None:
    assert (await instance(script(Answer(body=b"proof"), Answer(404))))[0] is None


async def test_instance_metadata_switched_off() -> None:
    found, server = await instance(metadata, {"AWS_EC2_METADATA_DISABLED": "True"})
    assert found is None
    assert not server.requests


@pytest.mark.parametrize(
    "answers",
    [
        (Answer(500),),
        (Answer(body=b"proof"), Answer(500)),
        (Answer(body=b"proof"), Answer(body=b"../../evil")),
        (Answer(body=b"proof"), Answer(body=b"role"), Answer(body=b'{"Code": "Failed"}')),
        (Answer(body=b"proof"), DROP),
    ],
)
async def test_instance_metadata_that_fails(answers: tuple[Answer, ...]) -> None:
    with pytest.raises(CredentialsUnavailable, match="instance metadata"):
        await instance(script(*answers))


# All of them.


async def test_order(tmp_path: Path) -> None:
    """A source is used only where those before it are not configured."""

    async with serving(script(ISSUED)) as server:
        http = HttpClient()
        full = (
            KEYS
            | home(tmp_path, FILE)
            | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/c"}
            | {"AWS_EC2_METADATA_DISABLED": "true"}
        )
        order = [
            ({"AWS_ACCESS_KEY_ID"}, "AKID"),
            ({"HOME"}, "AKID1"),
            ({"AWS_CONTAINER_CREDENTIALS_FULL_URI"}, "ASIA1"),
        ]
        gone: set[str] = set()
        for names, expected in order:
            environment = {name: value for name, value in full.items() if name not in gone}
            found = await fetch(default_chain(environment, http, region="eu-west-1"))
            assert found is not None
            assert found.access_key == expected
            gone |= names
        nothing = {"AWS_EC2_METADATA_DISABLED": "true"}
        with pytest.raises(NoCredentials):
            await fetch(default_chain(nothing, http, region="eu-west-1"))
        await http.close()


async def test_a_configured_source_that_fails_ends_the_search(tmp_path: Path) -> None:
    environment = home(tmp_path, FILE) | {"AWS_ACCESS_KEY_ID": "AKID"}
    with pytest.raises(CredentialsUnavailable):
        await fetch(default_chain(environment, HttpClient(), region="eu-west-1"))


async def test_the_chain_stays_with_its_source() -> None:
    class Counting:
        def __init__(self, found: Credentials | None) -> None:
            self.found = found
            self.asked = 0

        async def fetch(self, *, deadline: float) -> Credentials | None:
            assert deadline
            self.asked += 1
            return self.found

    without, having = Counting(None), Counting(CREDENTIALS)

    async def play() -> None:
        chain = CredentialChain([without, having])
        for _ in range(3):
            assert await fetch(chain) == CREDENTIALS

    await play()
    assert (without.asked, having.asked) == (1, 3)
