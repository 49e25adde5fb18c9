"""Every client of this server over TLS: right certificates are accepted, and only those."""

import asyncio
import json
import logging
import re
import socket
import ssl
import struct
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from seawall.composition import _fetcher, open_client
from seawall.config import Settings, load_settings
from seawall.errors import ConfigError, StoreUnavailable
from seawall.events import Event
from seawall.identity import Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.models.open import open_upstreams
from seawall.orchestrator import Orchestrator
from seawall.requests import new_request
from seawall.storage.open import open_store
from seawall.telemetry.open import open_telemetry
from seawall.tools.sources import open_catalog
from seawall.transport.connection import ConnectFailed
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.tls import tls_context
from seawall.transport.webhook import Webhook
from tests.certificates import FAULTS, Authority
from tests.dynamodb_local import ENVIRONMENT
from tests.faulty_server import Answer, Request, encode, script, serving
from tests.identity.outbound.opened import opened, token
from tests.issuer import ISSUER as ISSUER_URL
from tests.issuer import Issuer

SECRET = "whsec_" + "A" * 43 + "="
ISSUER = Issuer()
ISSUER.add("one", "ES256")
KEYS = ISSUER.key_set()
TOKEN = json.dumps({"access_token": "abc", "token_type": "Bearer"}).encode()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def get(url: str, context: ssl.SSLContext) -> int:
    client = HttpClient(ssl_context=context)
    deadline = asyncio.get_running_loop().time() + 10
    try:
        answer = await client.request("GET", Endpoint.parse(url), deadline=deadline)
    finally:
        await client.close()
    return answer.status


# --- The context, and what it refuses.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("through", [False, True])
async def test_the_right_certificate_is_accepted(
    authority: Authority, host: str, through: bool
) -> None:
    tls = authority.server(through=through)
    async with serving(script(Answer()), tls=tls) as server:
        url = server.url.replace("127.0.0.1", host)
        assert await get(url, tls_context(str(authority.file))) == 200


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_wrong_certificate_is_refused_and_the_check_is_named(
    authority: Authority, tmp_path: Path, fault: str
) -> None:
    make, said = FAULTS[fault]
    async with serving(script(Answer()), tls=make(authority, tmp_path)) as server:
        with pytest.raises(ConnectFailed, match=said) as caught:
            await get(server.url, tls_context(str(authority.file)))
        assert not server.requests
    assert server.url.removeprefix("https://") in str(caught.value)


async def test_without_a_file_the_systems_authorities_count(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(script(Answer()), tls=authority.server()) as server:
        with pytest.raises(ConnectFailed, match="set ca_file"):
            await get(server.url, tls_context())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert await get(server.url, tls_context()) == 200


async def test_the_host_is_named_in_the_handshake_and_an_address_is_not(
    authority: Authority,
) -> None:
    tls = authority.server()
    named: list[str | None] = []
    tls.sni_callback = lambda _, name, __: named.append(name)
    async with serving(script(Answer()), tls=tls) as server:
        for url in (server.url.replace("127.0.0.1", "localhost"), server.url):
            await get(url, tls_context(str(authority.file)))
    assert named == ["localhost", None]


async def test_tls_1_1_is_refused(authority: Authority) -> None:
    def limited(context: ssl.SSLContext) -> ssl.SSLContext:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    # A blocking server: asyncio's closes the connection without the alert that others send.
    listening = socket.create_server(("127.0.0.1", 0))
    versions: list[str | None] = []

    def serve(tls: ssl.SSLContext) -> None:
        for _ in range(2):
            accepted, _ = listening.accept()
            with suppress(ssl.SSLError), tls.wrap_socket(accepted, server_side=True) as secure:
                versions.append(secure.version())
                secure.recv(1_024)
                secure.sendall(encode(Answer()))

    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    with listening:
        serving = asyncio.create_task(asyncio.to_thread(serve, limited(authority.server())))
        with pytest.raises(ConnectFailed, match=r"does not speak TLS 1\.2 or later"):
            await get(url, tls_context(str(authority.file)))
        assert await get(url, limited(tls_context(str(authority.file)))) == 200
        await serving
    assert versions == ["TLSv1.1"]


async def test_a_server_without_tls(authority: Authority) -> None:
    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Answer(400)))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectFailed, match="does not speak TLS at this port"):
            await get(url, tls_context(str(authority.file)))


class Late(asyncio.SelectorEventLoop):
    """An event loop on which tasks go on late, with what has happened meanwhile."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        made = await super().create_connection(*args, **options)
        await asyncio.sleep(0.05)
        return made


class LateUvloop(uvloop.Loop):
    """See `Late`."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        made = await super().create_connection(*args, **options)
        await asyncio.sleep(0.05)
        return made


def reset(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda writer: writer.write(encode(Answer(400))), "does not speak TLS at this port"),
        (lambda writer: writer.write_eof(), "was closed while it was being made"),
        (lambda writer: writer.close(), "was closed while it was being made"),
        (reset, "was closed while it was being made"),
    ],
    ids=["answer", "half-close", "close", "reset"],
)
@pytest.mark.parametrize("loop", [Late, LateUvloop])
def test_what_a_server_does_before_the_handshake(
    authority: Authority,
    does: Callable[[asyncio.StreamWriter], None],
    said: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    reported: list[object] = []
    writers: list[asyncio.StreamWriter] = []

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        does(writer)

    async def connect() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, each: reported.append(each))
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(ConnectFailed, match=f"^{address}: .*{said}"):
                await get(f"https://{address}", tls_context(str(authority.file)))
            for writer in writers:
                writer.transport.abort()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(connect())
    assert not reported


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("", "has no certificate")])
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"models\.default\.ca_file: /.*ca\.pem: {said}"):
        tls_context(str(file), key="models.default.ca_file")


# --- A whole server, and what a configuration must not say.

AGENT = '[agents.a]\ninstructions = "x"\n[models.default]\n'
PLAIN_MODEL = 'base_url = "http://127.0.0.1:1"\nmodel = "m"\n'


async def test_a_turn_over_tls_of_ones_own_authority(authority: Authority, tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if request.target == "/keys":
            return Answer(body=KEYS)
        chunk = {"choices": [{"index": 0, "delta": {"content": "secure"}, "finish_reason": "stop"}]}
        stream = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        return Answer(body=stream, headers={"content-type": "text/event-stream"})

    async with serving(answer, tls=authority.server()) as server:
        file = tmp_path / "seawall.toml"
        file.write_text(f"""
            {AGENT}
            base_url = "{server.url}"
            model = "m"
            ca_file = "authority.pem"
            [identity.jwt]
            issuer = "{ISSUER_URL}"
            jwks_url = "{server.url}/keys"
            ca_file = "authority.pem"
        """)
        async with Orchestrator.from_config(file) as app:
            events: list[Event] = []

            async def emit(*happened: Event) -> None:
                events.extend(happened)

            report = await app.engine.execute(new_request("hello"), Bearer(ISSUER.token()), emit)
    assert report.outcome == "completed"
    assert "secure" in str(events)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN_MODEL + 'ca_file = "ca.pem"', "models.default.ca_file: has no effect"),
        (
            PLAIN_MODEL + '[sessions]\nstore = "dynamodb"\nca_file = "ca.pem"',
            "sessions: ca_file has no effect",
        ),
        (
            PLAIN_MODEL + '[identity.jwt]\nissuer = "i"\njwks_file = "j"\nca_file = "ca.pem"',
            "identity.jwt: ca_file has no effect",
        ),
    ],
)
def test_a_file_that_would_have_no_effect_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(tmp_path, AGENT + text)


def test_one_address_has_one_file(tmp_path: Path) -> None:
    model = 'base_url = "https://models.example"\nmodel = "m"\nca_file = "{}.pem"\n'
    for name in ("a", "b"):
        Authority(tmp_path, name)
    text = AGENT + model.format("a") + "[models.other]\n" + model.format("b")
    with pytest.raises(ConfigError, match=r"models\.other\.ca_file: .*a\.pem is set for models"):
        open_client(load(tmp_path, text))


# --- Every client, as it is configured. Each tries its upstream once; what it says is returned,
# --- or logged.


def load(folder: Path, text: str) -> Settings:
    """Read a configuration whose paths are relative to its folder."""
    file = folder / "seawall.toml"
    file.write_text(text)
    return load_settings(file, {})


async def call_model(url: str, folder: Path) -> str:
    text = f'base_url = "{url}"\nmodel = "m"\nca_file = "authority.pem"\nwarm_connections = 1\n'
    settings = load(folder, AGENT + text)
    client = open_client(settings)
    await open_upstreams(settings.models, client, {})["default"].model.warm()
    await client.close()
    return ""


async def fetch_keys(url: str, folder: Path) -> str:
    jwt = f'[identity.jwt]\nissuer = "i"\njwks_url = "{url}"\nca_file = "authority.pem"\n'
    settings = load(folder, AGENT + PLAIN_MODEL + jwt)
    client = open_client(settings)
    await build_authenticator(settings.identity, _fetcher(client)).warm()
    await client.close()
    return ""


async def open_sessions(url: str, folder: Path) -> str:
    text = f'[sessions]\nstore = "dynamodb"\nendpoint = "{url}"\nca_file = "authority.pem"\n'
    settings = load(folder, AGENT + PLAIN_MODEL + text)
    try:
        async with asyncio.timeout(20):
            await open_store(settings.sessions, ENVIRONMENT)
    except StoreUnavailable as error:
        return str(error)
    except ConfigError:
        return ""  # it answered, though not as DynamoDB does
    raise AssertionError("the server is no DynamoDB")


async def export(url: str, folder: Path) -> str:
    text = f'[telemetry]\nendpoint = "{url}"\nca_file = "authority.pem"\n'
    settings = load(folder, AGENT + PLAIN_MODEL + text)
    telemetry = open_telemetry(settings.telemetry, settings.models, {})
    telemetry.recorder.begin(b"").end()
    await telemetry.flush(0.5)
    await telemetry._exporter._client.close()
    return ""


async def notify(url: str, folder: Path) -> str:
    text = f'[handover]\nurl = "{url}"\nrole = "r"\nsecret_env = "S"\nca_file = "authority.pem"\n'
    client = open_client(load(folder, AGENT + PLAIN_MODEL + text))
    await Webhook(client, url, b"x" * 24).deliver("m", b"{}")
    await client.close()
    return ""


async def list_tools(url: str, folder: Path) -> str:
    text = f'[tools.crm]\nmcp = "{url}"\npin = "off"\n[tools.crm.tls]\nca_file = "authority.pem"\n'
    settings = load(folder, AGENT + PLAIN_MODEL + text)
    catalog = open_catalog(settings.sources, folder=settings.folder, environment={})
    await catalog.list_all()
    listed = "crm" in catalog.tools
    await catalog.close()
    return "" if listed else "not listed"


async def get_token(url: str, folder: Path) -> str:
    table = {
        "kind": "client-credentials",
        "token_url": url,
        "client_id": "seawall",
        "client_secret_env": "SECRET",
        "ca_file": str(folder / "authority.pem"),
    }
    async with opened(table, environment={"SECRET": "s"}) as credentials:
        try:
            await token(credentials)
        except CredentialsUnavailable as error:
            return error.detail
    return ""


CLIENTS: dict[str, Callable[[str, Path], Awaitable[str]]] = {
    "model": call_model,
    "key set": fetch_keys,
    "sessions": open_sessions,
    "telemetry": export,
    "notifications": notify,
    "tools": list_tools,
    "tokens": get_token,
}


def answer(request: Request) -> Answer:
    if request.method == "POST" and b"grant_type" in request.body:
        return Answer(body=TOKEN)
    if b'"jsonrpc"' in request.body:
        return _mcp_answer(request)
    if "x-amz-target" in request.headers:
        return Answer(400, b'{"__type": "x#ResourceNotFoundException"}')
    return Answer(body=KEYS)


def _mcp_answer(request: Request) -> Answer:
    results = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "s", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
    }
    method = request.document["method"]
    if method not in results:
        return Answer(400 if "id" in request.document else 202)
    document = {"jsonrpc": "2.0", "id": request.document["id"], "result": results[str(method)]}
    return Answer(body=json.dumps(document).encode(), headers={"content-type": "application/json"})


@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_accepts_the_authority_that_is_configured(
    authority: Authority, tmp_path: Path, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(answer, tls=authority.server()) as server:
        said = await CLIENTS[client](server.url, tmp_path)
        assert server.connections
    assert not said
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_each_client_refuses_what_is_wrong_and_says_why(
    authority: Authority,
    tmp_path: Path,
    client: str,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make, because = FAULTS[fault]
    async with serving(answer, tls=make(authority, tmp_path)) as server:
        said = await CLIENTS[client](server.url, tmp_path)
        assert not server.requests
    assert re.search(because, said + caplog.text)
