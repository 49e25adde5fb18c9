"""MCP authorization against a real authorization server: discovery, registration, scopes, login."""

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import msgspec
import pytest

from seawall.errors import ConfigError
from seawall.identity.outbound.challenge import Challenge, parse_challenge
from seawall.identity.outbound.login_file import LoginFile
from seawall.identity.outbound.open import open_login
from seawall.identity.outbound.port import CredentialsUnavailable, OutboundCredentials
from seawall.identity.outbound.settings import McpAuth
from seawall.tools.port import ToolContext
from seawall.tools.remote_http import RemoteHttp
from seawall.tools.upstream import UpstreamFault
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.tls import tls_context
from seawall.turn import Principal
from tests.certificates import Authority
from tests.faulty_server import Answer, Request, serving
from tests.identity.outbound.opened import ADA, BOB, opened, settings_of
from tests.identity.outbound.provider import (
    EXCHANGE,
    Provider,
    client,
    running_provider,
    sign_in,
)
from tests.identity.outbound.resource import McpServer, running_resource
from tests.issuer import Issuer

RESOURCES = {"*": {"scope": "orders.read orders.write offline_access", "seconds": 600}}
SECRET = {"SECRET": client("basic")["client_secret"]}


@pytest.fixture(scope="module")
def open_provider(callers: Issuer) -> Iterator[Provider]:
    """One where clients register themselves, and every resource is known."""
    with running_provider(
        clients=[client("basic")],
        subject_keys=callers.key_set(),
        resources=RESOURCES,
        registration=True,
    ) as provider:
        yield provider


async def call(
    credentials: OutboundCredentials,
    url: str,
    principal: Principal | None = ADA,
    caller_token: str = "",
    *,
    ca_file: str = "",
) -> int:
    """One call of the server, as tools make it; the status."""
    client = HttpClient(ssl_context=tls_context(ca_file) if ca_file else None)
    http = RemoteHttp(client, allowed=[url], credentials=credentials)
    deadline = asyncio.get_running_loop().time() + 30
    context = None
    if principal is not None:
        context = ToolContext(
            principal=principal,
            session="s",
            turn="t",
            agent="a",
            call="c",
            idempotency_key="k",
            deadline=deadline,
            state={},
            caller_token=caller_token,
        )
    answer = await http.request("POST", url, body=b"{}", context=context, deadline=deadline)
    await http.client.close()
    return answer.status


def table_of(provider: Provider, **more: Any) -> dict[str, Any]:
    """As this server, with a secret that it was given."""
    return {
        "kind": "mcp",
        "issuers": [provider.url],
        "client_id": "basic",
        "client_secret_env": "SECRET",
        **more,
    }


@pytest.mark.parametrize("named", [True, False])
async def test_what_the_server_asks_for_is_found(open_provider: Provider, named: bool) -> None:
    async with (
        running_resource(open_provider) as server,
        opened(table_of(open_provider), address=server.url, environment=SECRET) as credentials,
    ):
        server.names_metadata = named
        assert [await call(credentials, server.url) for _ in range(3)] == [200] * 3
        assert server.refused == 1  # the very first request
        assert server.server is not None
        fetched = [each.target for each in server.server.requests if each.method == "GET"]
        assert len(fetched) == 1
    claims = server.served[0]
    assert (claims["client_id"], claims["aud"], claims["scope"]) == (
        "basic",
        server.url,
        "orders.read",
    )


async def test_a_server_with_a_certificate_of_ones_own_authority(
    open_provider: Provider, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    file = str(authority.file)
    async with running_resource(open_provider, tls=authority.server()) as server:
        for ca_file, said in ((file, 200), ("", "set ca_file")):
            async with opened(
                table_of(open_provider), address=server.url, environment=SECRET, ca_file=ca_file
            ) as credentials:
                try:
                    found: int | str = await call(credentials, server.url, ca_file=file)
                except UpstreamFault as fault:
                    found = str(fault)
                assert found == said or str(said) in str(found)


async def test_a_client_that_is_not_configured_registers_itself(open_provider: Provider) -> None:
    async with (
        running_resource(open_provider) as server,
        opened({"kind": "mcp"}, address=server.url) as credentials,
    ):
        assert [await call(credentials, server.url) for _ in range(3)] == [200] * 3
    assert len({each["client_id"] for each in server.served}) == 1
    assert server.served[0]["client_id"] != "basic"


async def test_a_server_of_2025_03_26_is_its_own_authorization_server() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Answer:
        asked.append(request)
        origin = server.url
        match request.target:
            case "/.well-known/oauth-authorization-server":
                document: dict[str, Any] = {
                    "issuer": origin,
                    "token_endpoint": f"{origin}/token",
                    "registration_endpoint": f"{origin}/register",
                }
            case "/register":
                document = {"client_id": "c", "client_secret": "s"}
            case "/token":
                document = {"access_token": "good", "token_type": "Bearer", "expires_in": 60}
            case "/mcp" if request.headers.get("authorization") == "Bearer good":
                document = {}
            case "/mcp":
                return Answer(401)
            case _:
                return Answer(404)
        return Answer(body=json.dumps(document).encode())

    async with serving(answer) as server:
        url = f"{server.url}/mcp"
        async with opened({"kind": "mcp"}, address=url) as credentials:
            assert await call(credentials, url) == 200
    (grant,) = (each for each in asked if each.target == "/token")
    assert f"resource={quote_plus(url)}".encode() in grant.body


async def test_more_scopes_are_asked_for_when_they_are_needed(open_provider: Provider) -> None:
    async with (
        running_resource(open_provider) as server,
        opened(table_of(open_provider), address=server.url, environment=SECRET) as credentials,
    ):
        assert await call(credentials, server.url) == 200
        server.needs = "orders.write"
        assert await call(credentials, server.url) == 200
        assert set(server.served[-1]["scope"].split()) == {"orders.read", "orders.write"} or (
            server.served[-1]["scope"] == "orders.write"
        )


async def test_a_scope_that_is_never_granted_is_asked_for_once(open_provider: Provider) -> None:
    async with (
        running_resource(open_provider) as server,
        opened(table_of(open_provider), address=server.url, environment=SECRET) as credentials,
    ):
        server.needs = "orders.delete"  # which the authorization server does not know
        said = [await call_or_fault(credentials, server.url) for _ in range(6)]
        assert set(said) <= {"refused", 403}
        assert server.refused <= 6 + 2
    assert not server.served


async def call_or_fault(credentials: OutboundCredentials, url: str) -> int | str:
    try:
        return await call(credentials, url)
    except UpstreamFault as fault:
        return fault.kind


async def test_callers_tokens_are_exchanged_and_never_mixed_up(
    open_provider: Provider, callers: Issuer
) -> None:
    table = table_of(open_provider, grant="token-exchange")
    subjects = {
        Principal("acme", f"subject{number}"): callers.token(f"subject{number}")
        for number in range(10)
    }
    before = await open_provider.calls(EXCHANGE)
    async with (
        running_resource(open_provider) as server,
        opened(table, address=server.url, environment=SECRET) as credentials,
    ):

        async def one(principal: Principal, caller: str) -> None:
            assert await call(credentials, server.url, principal, caller) == 200

        await asyncio.gather(*(one(*each) for _ in range(20) for each in subjects.items()))
        with pytest.raises(UpstreamFault, match="a caller's token is needed"):
            await call(credentials, server.url, BOB)
    assert await open_provider.calls(EXCHANGE) == before + len(subjects)
    assert {each["sub"] for each in server.served} == {each.subject for each in subjects}


# --- What must not be believed.


async def refusal(provider: Provider, table: dict[str, Any], **changes: Any) -> str:
    """Why a server with changes gets no token."""
    async with (
        running_resource(provider) as server,
        opened(table, address=server.url, environment=SECRET) as credentials,
    ):
        for name, value in changes.items():
            setattr(server, name, value)
        with pytest.raises(UpstreamFault) as caught:
            await call(credentials, server.url)
        assert not server.served
    return str(caught.value)


async def test_metadata_of_another_resource_is_refused(open_provider: Provider) -> None:
    table = table_of(open_provider)
    for resource in ("https://other.example.com/mcp", "http://127.0.0.1:9/mcp"):
        assert "another resource" in await refusal(open_provider, table, resource=resource)


async def test_an_authorization_server_that_is_not_configured_gets_no_secret(
    open_provider: Provider,
) -> None:
    sent: list[Request] = []

    def evil(request: Request) -> Answer:
        sent.append(request)
        return Answer(404)

    async with serving(evil) as other:
        said = await refusal(open_provider, table_of(open_provider), issuer=other.url)
    assert "none of issuers" in said
    assert not sent


async def test_metadata_of_another_issuer_is_refused() -> None:
    def evil(_: Request) -> Answer:
        document = {"issuer": "https://sso.example.com", "token_endpoint": "https://a.example/t"}
        return Answer(body=json.dumps(document).encode())

    with running_provider(clients=[], resources=RESOURCES) as provider:
        async with serving(evil) as other:
            said = await refusal(provider, {"kind": "mcp"}, issuer=other.url)
    assert "another issuer" in said


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        ("http://sso.example.com", "is not https"),
        ("ftp://127.0.0.1/", "is not https"),
        ("https://user:password@sso.example.com", "is not https"),
        ("https://10.0.0.1", "not a public address"),
        ("https://[::ffff:10.0.0.1]", "not a public address"),
        ("https://[64:ff9b::10.0.0.1]", "not a public address"),
        ("https://[2002:a00:1::]", "not a public address"),
        ("https://[::10.0.0.1]", "not a public address"),
        ("https://[fec0::1]", "not a public address"),
        ("https://224.0.0.1", "not a public address"),
        ("https://169.254.169.254", "not a public address"),
        ("not a url", "is not https"),
        ("https://sso.example.com/\x1b[2J", "is not https"),
        ("https://sso.example\n.com", "is not https"),
    ],
)
async def test_addresses_of_documents_are_checked(
    open_provider: Provider, issuer: str, said: str
) -> None:
    assert said in await refusal(open_provider, {"kind": "mcp"}, issuer=issuer)


@pytest.mark.parametrize("named", ["registration_endpoint", "token_endpoint"])
async def test_a_server_that_is_its_own_issuer_names_no_private_address(
    tmp_path: Path, named: str
) -> None:
    """It is configured; what its metadata names is not."""

    def answer(request: Request) -> Answer:
        origin = f"https://0.0.0.0:{urlsplit(server.url).port}"
        match request.target:
            case "/.well-known/oauth-authorization-server":
                document = {
                    "issuer": origin,
                    "token_endpoint": f"{origin}/token",
                    "registration_endpoint": f"{origin}/register",
                    named: "https://0.0.0.0:1/",
                }
                return Answer(body=json.dumps(document).encode())
            case "/register":
                return Answer(body=b'{"client_id": "c", "client_secret": "s"}')
            case "/mcp":
                return Answer(401)
        return Answer(404)

    authority = Authority(tmp_path)
    ca_file = str(authority.file)
    # 0.0.0.0 is a host of the private network, unlike 127.0.0.1, with which all may be.
    async with serving(answer, tls=authority.server("0.0.0.0")) as server:
        url = f"https://0.0.0.0:{urlsplit(server.url).port}/mcp"
        async with opened({"kind": "mcp"}, address=url, ca_file=ca_file) as credentials:
            with pytest.raises(UpstreamFault, match=r"0\.0\.0\.0 is not a public address"):
                await call(credentials, url, ca_file=ca_file)


async def test_metadata_elsewhere_than_on_the_server_is_not_fetched() -> None:
    fetched: list[Request] = []

    def elsewhere(request: Request) -> Answer:
        fetched.append(request)
        return Answer()

    async with serving(elsewhere) as other:
        challenge = f'Bearer resource_metadata="{other.url}/metadata"'

        def refuse(_: Request) -> Answer:
            return Answer(401, headers={"www-authenticate": challenge})

        async with (
            serving(refuse) as server,
            opened({"kind": "mcp"}, address=f"{server.url}/mcp") as credentials,
        ):
            with pytest.raises(UpstreamFault, match="not on the server itself"):
                await call(credentials, f"{server.url}/mcp")
    assert not fetched


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", Challenge()),
        ("Basic", Challenge()),
        ('Bearer scope="a b"', Challenge(scope="a b")),
        ('bearer Scope=a , error = "x\\"y"', Challenge(scope="a", error='x"y')),
        ('Basic realm="Bearer scope=evil", Bearer scope="a"', Challenge(scope="a")),
        ('DPoP scope="evil", Bearer scope="a"', Challenge(scope="a")),
        ('Bearer scope="a", DPoP scope="b", error="c"', Challenge(scope="a")),
        ('Bearer scope="a" garbage=', Challenge()),
        ('Bearer error="a", scope="unfinished', Challenge(error="a")),
        ("Bearer " + "a=b, " * 100_000, Challenge()),
        ("=" * 100_000, Challenge()),
    ],
)
def test_challenges_are_read(value: str, found: Challenge) -> None:
    assert parse_challenge(value) == found


# --- Signing in.


def login_table(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "mcp", "grant": "login", "login_file": str(tmp_path / "login.json"), **more}


async def log_in(table: dict[str, Any], server: McpServer, browser: Any = None) -> None:
    """`seawall tools login`, with a person whose browser does what it is sent."""
    opened: list[asyncio.Task[None]] = []
    settings = settings_of(table)
    assert isinstance(settings, McpAuth)
    await open_login(
        settings,
        server.url,
        key="tools.crm.auth",
        show=lambda url: opened.append(asyncio.create_task((browser or follow)(url))),
        environment={},
    )
    await asyncio.gather(*opened)


async def follow(url: str) -> None:
    await come_back(await sign_in(url))


async def come_back(url: str, status: int = 200) -> None:
    http = HttpClient()
    deadline = asyncio.get_running_loop().time() + 20
    answer = await http.request("GET", Endpoint.parse(url), deadline=deadline)
    await http.close()
    assert answer.status == status


async def test_signing_in_keeps_what_is_issued_for_this_user_alone(
    open_provider: Provider, tmp_path: Path
) -> None:
    table = login_table(tmp_path)
    file = Path(table["login_file"])
    async with running_resource(open_provider) as server:
        async with opened(table, address=server.url) as credentials:
            with pytest.raises(UpstreamFault, match="seawall tools login"):
                await call(credentials, server.url)
        await log_in(table, server)
        assert mode_of(file) == 0o600
        async with opened(table, address=server.url) as credentials:
            assert [await call(credentials, server.url) for _ in range(3)] == [200] * 3
    assert {each["sub"] for each in server.served} == {"ada"}
    login = LoginFile(str(file)).read()
    assert login.refresh_token not in repr(login)


async def test_a_renewal_in_progress_does_not_undo_a_sign_in(
    open_provider: Provider, tmp_path: Path
) -> None:
    table = login_table(tmp_path)
    file = LoginFile(table["login_file"])
    async with running_resource(open_provider) as server:
        await log_in(table, server)
        first = file.read()
        deadline = asyncio.get_running_loop().time() + 20
        async with file.locked(deadline=deadline):  # by a server, which renews
            second = asyncio.create_task(log_in(table, server))
            await asyncio.wait((second,), timeout=1.0)
            file.write(first)
        await second
    assert file.read().refresh_token != first.refresh_token


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize("content", [b"", b"{]", b'{"resource": "\xff"}', b'{"x":' + b"[" * 9_999])
def test_a_file_that_is_damaged_is_not_used(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "login.json"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(CredentialsUnavailable, match=r"login\.json"):
        LoginFile(str(file)).read()


def test_a_file_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "login.json"
    file.write_text("{}")
    file.chmod(0o640)
    with pytest.raises(CredentialsUnavailable, match="other users may read it"):
        LoginFile(str(file)).read()


async def test_processes_that_share_a_sign_in_renew_it_once(
    open_provider: Provider, tmp_path: Path
) -> None:
    table = login_table(tmp_path)
    file = LoginFile(table["login_file"])
    async with running_resource(open_provider) as server:
        await log_in(table, server)
        first = file.read()
        file.write(msgspec.structs.replace(first, expires_at=1.0))
        before = await open_provider.calls("refresh_token")
        async with (
            opened(table, address=server.url) as one,
            opened(table, address=server.url) as other,
        ):
            found = await asyncio.gather(*(call(each, server.url) for each in (one, other) * 5))
        assert set(found) == {200}
        assert await open_provider.calls("refresh_token") == before + 1
    assert file.read().refresh_token != first.refresh_token


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"iss": "https://evil.example"}, "mix-up"),
        ({"iss": ""}, "mix-up"),
        ({"error": "access_denied", "code": ""}, "refused: 'access_denied'"),
        ({"code": ""}, "sent no code"),
    ],
)
async def test_what_comes_back_is_checked(
    open_provider: Provider, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    async def browser(url: str) -> None:
        back = urlsplit(await sign_in(url))
        query = {**dict(parse_qsl(back.query)), **change}
        kept = {name: value for name, value in query.items() if value}
        stranger = {**kept, "state": "another"}
        address = f"{back.scheme}://{back.netloc}{back.path}"
        await come_back(f"{address}?{urlencode(stranger)}", 404)  # does not end the sign-in
        await come_back(f"{address}?{urlencode(kept)}")

    table = login_table(tmp_path)
    async with running_resource(open_provider) as server:
        with pytest.raises(CredentialsUnavailable, match=said):
            await log_in(table, server, browser)
    assert not files_in(tmp_path)


async def test_a_table_of_another_grant_is_not_signed_in_for(
    open_provider: Provider,
) -> None:
    async with running_resource(open_provider) as server:
        with pytest.raises(ConfigError, match=r"tools\.crm\.auth\.grant"):
            await log_in({"kind": "mcp"}, server)
