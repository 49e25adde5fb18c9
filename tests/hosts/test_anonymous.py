"""`identity.anonymous`: this machine's own requests are admitted, everything else is not."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.attack.balancer import require_balancer
from tests.hosts.proxies import running_haproxy, running_nginx
from tests.servers import ServerProcess, running, running_model, running_server

Headers = dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("anonymous")
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(
            folder,
            model,
            log=str(folder / "log"),
            SERVER__WORKERS="2",
            IDENTITY__ANONYMOUS="true",
            SERVER__CORS='{origins = ["https://allowed.example"]}',
        ) as server,
    ):
        server.log = folder / "log"  # type: ignore[attr-defined]
        yield server


def ask(server: ServerProcess, headers: Headers, *, version: str = "1.1") -> tuple[int, str]:
    """Status and body of a turn that is asked for with exactly these headers."""
    host, port = server.url.removeprefix("http://").split(":")
    body = b'{"text": "hi"}'
    lines = {"content-length": str(len(body)), "connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST /v1/turns HTTP/{version}\r\n{head}\r\n".encode() + body)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return int(received.split(b" ", 2)[1]), received.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:8080"},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:3000"},
        {"Host": "127.8.9.10"},
        {"Host": "[::1]:8080"},
        {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
        {"Host": "localhost:8080", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost", "Origin": "https://allowed.example", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_direct_requests_from_the_same_machine_are_accepted(
    server: ServerProcess, headers: Headers
) -> None:
    status, body = ask(server, headers)
    assert status == 200, body


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8080"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1:80@evil.example"},
    {"Host": "10.0.0.1"},
    {"Host": "0.0.0.0"},
    {"Host": "127.0.0.256"},
    {"Host": "[::2]"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost:8080.evil.example"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
FORWARDING = """
Via Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port
X-Forwarded-Server X-Forwarded-Prefix X-Forwarded X-Real-IP CF-Connecting-IP CF-Ray CDN-Loop
True-Client-IP X-Client-IP X-Cluster-Client-IP Fastly-Client-IP X-Original-URL X-Original-Host
X-Original-Forwarded-For X-Envoy-External-Address X-Amzn-Trace-Id X-Varnish X-Azure-ClientIP
X-Appengine-User-IP Fly-Client-IP Tailscale-User-Login X-ProxyUser-Ip
"""


@pytest.mark.parametrize("headers", FOREIGN + [{name: "127.0.0.1"} for name in FORWARDING.split()])
def test_requests_from_elsewhere_are_rejected(server: ServerProcess, headers: Headers) -> None:
    status, body = ask(server, {"Host": "localhost:8080", **headers})
    if "@" in headers.get("Host", ""):  # not a host at all
        assert status == 400, body
        return
    assert status == 401, body
    assert "A credential is needed: " in body


@pytest.mark.parametrize(("version", "status"), [("1.0", 401), ("1.1", 200)])
def test_http_1_0_counts_as_forwarded(server: ServerProcess, version: str, status: int) -> None:
    assert ask(server, {"Host": "localhost"}, version=version)[0] == status


def test_every_endpoint_rejects_a_foreign_host(server: ServerProcess) -> None:
    foreign = {"host": "evil.example"}
    with httpx2.Client(base_url=server.url, headers=foreign) as client:
        chat = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
        for answer in (
            client.post("/v1/turns", json={"text": "hi"}),
            client.post("/v1/turns", json={"text": "hi", "background": True}),
            client.post("/v1/chat/completions", json=chat),
            client.get("/v1/models"),
            client.get("/v1/sessions"),
            client.get("/v1/sessions/ses_1"),
            client.delete("/v1/sessions/ses_1"),
            client.get("/v1/turns/trn_ses_1.1/events"),
        ):
            assert answer.status_code == 401, answer.request


@pytest.mark.parametrize(
    "extra",
    [
        "",
        # The two lines that its documentation gives for WebSockets.
        'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
        "proxy_set_header Host $host;",
        "proxy_set_header X-Real-IP $remote_addr;",
    ],
)
@pytest.mark.parametrize("host", ["shop.example", "127.0.0.1:8080"])
def test_through_nginx(server: ServerProcess, tmp_path: Path, extra: str, host: str) -> None:
    require_balancer("nginx")
    with running_nginx(tmp_path, server.url, extra) as front:
        answer = httpx2.post(f"{front}/v1/turns", json={"text": "hi"}, headers={"host": host})
    assert answer.status_code == 401
    assert "A credential is needed: " in answer.json()["detail"]


@pytest.mark.parametrize(
    ("extra", "host"), [("", "shop.example"), ("option forwardfor", "127.0.0.1:8080")]
)
def test_through_haproxy(server: ServerProcess, tmp_path: Path, extra: str, host: str) -> None:
    require_balancer()
    with running_haproxy(tmp_path, server.url, extra) as front:
        answer = httpx2.post(f"{front}/v1/turns", json={"text": "hi"}, headers={"host": host})
    assert answer.status_code == 401
    assert "A credential is needed: " in answer.json()["detail"]


def test_anonymous_access_is_logged_once_at_start(server: ServerProcess) -> None:
    said = server.log.read_text()  # type: ignore[attr-defined]
    assert said.count("identity.anonymous is true") == 1
    assert "a proxy or tunnel on this machine that hides where they came from" in said


def test_a_server_without_identity_logs_it_once(tmp_path: Path) -> None:
    source = tmp_path / "seawall.toml"
    source.write_text(
        f'[server]\nport = 0\nworkers = 2\n[sessions]\npath = "{tmp_path}/sessions.db"\n'
        '[agents.one]\ninstructions = "Help."\n'
        '[models.default]\nmodel = "x"\nbase_url = "http://127.0.0.1:9/v1"\n'
    )
    with running("serve", str(source), "--json", log=tmp_path / "log") as server:
        assert httpx2.get(f"{server.url}/v1/models").status_code == 401
    said = (tmp_path / "log").read_text()
    assert said.count("the configuration has no section [identity]") == 1
