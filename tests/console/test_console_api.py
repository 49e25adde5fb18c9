"""The console over HTTP: two workers as one, contents only for roles, and a list of attacks."""

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from seawall.settings import SessionSettings
from seawall.storage.audit import verify
from seawall.storage.open import open_store
from tests.console.app import MARKUP
from tests.console.conftest import Console, keys, serving
from tests.hosts.test_interruptions import eventually


def rows(console: Console, key: str = "sw_looks", **query: str) -> list[dict[str, object]]:
    with console.client(key) as client:
        answered = client.get("/console/api/turns", params=query)
    assert answered.status_code == 200, answered.text
    found: list[dict[str, object]] = answered.json()["turns"]
    return found


def test_turns_of_all_workers_are_found_whichever_worker_is_asked(console: Console) -> None:
    made = {console.turn()["turn"] for _ in range(12)}  # on connections that the kernel spreads
    for _ in range(6):
        assert made <= {each["turn"] for each in rows(console)}
    one = min(made)
    found = rows(console, turn=one)
    assert [each["turn"] for each in found] == [one]
    assert found[0]["tenant"] == "acme"
    assert found[0]["outcome"] == "completed"
    assert rows(console, tenant="other") == []
    assert one in {each["turn"] for each in rows(console, outcome="succeeded", subject="ada")}
    assert rows(console, since="99999999999") == []
    assert all(each["course"] for each in rows(console, course="recorded"))


def test_a_waterfall_has_stages_calls_and_no_contents(console: Console) -> None:
    turn = console.turn(text="A secret word")["turn"]
    with console.client("sw_looks") as client:
        answered = client.get(f"/console/api/turns/{turn}")
    shown = answered.json()
    names = [each["name"] for each in shown["spans"]]
    assert names.count("model default") == 2
    for name in ("authenticate", "admission", "opening", "execute_tool look_up", "commit"):
        assert name in names
    for span in shown["spans"]:
        assert 0 <= span["began"] <= span["ended"]
    model = next(each for each in shown["spans"] if each["name"] == "model default")
    assert model["attributes"]["gen_ai.usage.output_tokens"] >= 0
    assert "secret" not in answered.text
    assert MARKUP[:10] not in answered.text


def test_events_are_those_that_were_streamed(console: Console) -> None:
    with (
        console.client("sw_customer") as client,
        client.stream("POST", "/v1/turns", json={"text": "x", "stream": True}) as stream,
    ):
        text = "".join(stream.iter_text())
    frames = [
        dict(line.split(": ", 1) for line in frame.split("\n"))
        for frame in text.split("\n\n")
        if frame
    ]
    streamed = [(int(each["id"]), json.loads(each["data"])) for each in frames]
    turn = streamed[0][1]["turn"]
    with console.client("sw_reads") as client:
        answer = client.get(f"/console/api/turns/{turn}/events").json()
    recorded = [(each["id"], each["event"]) for each in answer["events"]]
    assert recorded == streamed
    times = [each["at"] for each in answer["events"]]
    assert times == sorted(times)


async def test_reading_leaves_a_line_in_the_log_and_a_record_in_the_chain(console: Console) -> None:
    made = console.turn(text="A private matter")
    with console.client("sw_reads") as client:
        query = {"tenant": "acme", "subject": "ada"}
        shown = client.get(f"/console/api/sessions/{made['session']}", params=query)
        client.get(f"/console/api/turns/{made['turn']}/events")
    assert "A private matter" in shown.text
    line = f"rita of ops reads session {made['session']}"
    eventually(lambda: (console.folder / "log").read_text().count(line) == 2)
    store = await open_store(SessionSettings(path=str(console.folder / "sessions.db")))
    try:
        page = await store.audit(tenant="acme", limit=200)
    finally:
        await store.close()
    records = [each for each in page.records if each.key.session == made["session"]]
    assert [each.kind for each in records] == ["read", "read"]
    assert [each.turn for each in records] == ["", made["turn"]]
    assert {each.decision.by for each in records if each.decision} == {"rita of ops"}
    assert verify(records) is None


async def test_the_record_of_a_reading_cannot_be_made_elsewhere(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        SERVER__WORKERS="1",
        IDENTITY__API_KEYS=keys(),
        CONSOLE__ENABLED="true",
        CONSOLE__READ="['support']",
        CONSOLE__TURNS="1",
    ) as server:
        console = Console(server, tmp_path)
        made = console.turn(text="A private matter")
        other = console.turn()
        with console.client("sw_reads") as client:
            query = {"tenant": "acme", "subject": "ada", "session": other["session"]}
            shown = client.get(f"/console/api/turns/{made['turn']}/events", params=query)
    assert "Found: tide" in "".join(
        each["event"].get("text", "") for each in shown.json()["events"]
    )
    store = await open_store(SessionSettings(path=str(tmp_path / "sessions.db")))
    try:
        page = await store.audit(tenant="acme", limit=200)
    finally:
        await store.close()
    records = [(each.key.session, each.turn) for each in page.records if each.kind == "read"]
    assert records == [(made["session"], made["turn"])]
    assert f"reads session {made['session']}" in (tmp_path / "log").read_text()


def test_sessions_of_a_subject_are_listed_without_contents(console: Console) -> None:
    session = console.turn(text="Another private matter")["session"]
    with console.client("sw_looks") as client:
        query = {"tenant": "acme", "subject": "ada"}
        answered = client.get("/console/api/sessions", params=query)
        assert session in {each["session"] for each in answered.json()["sessions"]}
        assert "private" not in answered.text
        assert client.get("/console/api/sessions").status_code == 422


def test_what_happens_now_is_of_both_workers(console: Console) -> None:
    workers: set[str] = set()
    sent: set[tuple[str, int]] = set()
    begun = 0
    with console.client("sw_looks") as client, client.stream("GET", "/console/api/now") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name, seconds = "", 0
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if not line.startswith("data: "):
                continue
            data = json.loads(line.removeprefix("data: "))
            if name == "history":
                console.turn()
            workers |= set(data)
            if name == "second":
                fresh = {(worker, each["at"]) for worker, all_ in data.items() for each in all_}
                assert not fresh & sent, "each second is sent once"
                sent |= fresh
                begun += sum(each["begun"] for all_ in data.values() for each in all_)
            seconds += name == "second"
            if seconds == 4:
                break
    assert workers == {"0", "1"}
    assert begun >= 1


def at_once(stack: ExitStack, url: str, count: int, pieces: tuple[bytes, ...]) -> list[int]:
    """The statuses of as many requests, each in pieces; the answers are not read."""
    address = urlsplit(url)
    place = (address.hostname or "", address.port or 0)
    asking = [stack.enter_context(socket.create_connection(place, 10)) for _ in range(count)]
    for piece in pieces:
        for each in asking:
            each.sendall(piece)
        time.sleep(0.3)
    return sorted(int(each.recv(12).split()[1]) for each in asking)


def test_clients_that_do_not_read_reports_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/large.html").write_bytes(b"<p>" * 10_000_000)
    with (
        serving(
            tmp_path,
            SERVER__WORKERS="1",
            IDENTITY__ANONYMOUS="true",
            CONSOLE__REPORTS=str(tmp_path / "reports"),
        ) as server,
        ExitStack() as stack,
    ):
        host = urlsplit(server.url).netloc
        request = f"GET /console/reports/large.html HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
        assert at_once(stack, server.url, 12, (request,)) == [200] * 4 + [503] * 8


def test_viewers_that_come_at_once_are_bounded_too(tmp_path: Path) -> None:
    with serving(
        tmp_path, SERVER__WORKERS="1", IDENTITY__ANONYMOUS="true", CONSOLE__VIEWERS="2"
    ) as server:
        host = urlsplit(server.url).netloc
        request = (
            f"GET /console/api/now HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        with ExitStack() as stack:  # all have been asked who they are before the first is shown it
            statuses = at_once(stack, server.url, 12, (request.encode(), b"0\r\n\r\n"))
        assert statuses == [200] * 2 + [503] * 10

        def again() -> bool:
            with httpx2.stream("GET", f"{server.url}/console/api/now", timeout=10) as answered:
                return answered.status_code == 200

        eventually(again)  # places are free again


ADA, RITA = "tenant=acme&subject=ada", "tenant=ops&subject=rita"
ATTACKS = (
    ("contents without the permission", "/console/api/turns/{turn}/events", "sw_looks", 403),
    ("a conversation without it", "/console/api/sessions/{session}?" + ADA, "sw_looks", 403),
    ("a customer looks", "/console/api/turns", "sw_customer", 403),
    ("a customer looks at now", "/console/api/now", "sw_customer", 403),
    ("a customer looks at a turn", "/console/api/turns/{turn}", "sw_customer", 403),
    ("a customer reads a turn", "/console/api/turns/{turn}/events", "sw_customer", 403),
    ("a customer reads reports", "/console/api/reports", "sw_customer", 403),
    ("nobody looks", "/console/api/turns", "", 401),
    ("nobody looks at now", "/console/api/now", "", 401),
    ("a wrong key", "/console/api/turns", "sw_wrong", 401),
    ("another's session as one's own", "/console/api/sessions/{session}?" + RITA, "sw_reads", 404),
    ("a path out of the assets", "/console/assets/..%2f..%2faccess.py", "sw_reads", 404),
    ("a path out of the reports", "/console/reports/..%2fsessions.db", "sw_reads", 404),
    ("an unknown field", "/console/api/turns?password=x", "sw_looks", 422),
    ("not a time", "/console/api/turns?since=nan", "sw_looks", 422),
    ("a value that is too long", "/console/api/turns?tenant=" + "x" * 300, "sw_looks", 422),
    ("an unknown turn", "/console/api/turns/" + "x" * 400, "sw_looks", 404),

)  # fmt: skip


@pytest.mark.parametrize(("what", "path", "key", "status"), ATTACKS)
def test_refused(console: Console, what: str, path: str, key: str, status: int) -> None:
    made = console.turn()
    with console.client(key) as client:
        answered = client.get(path.format(**made))
        assert client.delete(path.format(**made)).status_code in {404, 405}
    assert answered.status_code == status, f"{what}: {answered.text}"
    assert "tide" not in answered.text


@pytest.fixture
def logged_in(console: Console) -> httpx2.Client:
    client = console.client()
    answered = client.post("/console/api/login", json={"credential": "sw_reads"})
    assert answered.status_code == 204
    cookie = answered.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=28800"):
        assert attribute in cookie
    assert "Secure" not in cookie  # not over HTTPS
    return client


@pytest.mark.parametrize("key", ["sw_reads", "sw_with.two.dots"])
def test_a_login_beside_cookies_of_other_applications(console: Console, key: str) -> None:
    with console.client() as client:
        given = client.post("/console/api/login", json={"credential": key})
        assert given.status_code == 204
        sealed = given.headers["set-cookie"].partition(";")[0]
        for others in ('cart={"a": 1}; %s', "%s; [x]=1", "=; %s; ={}", "name=J\xfcrgen;%s"):
            headers = {b"cookie": (others % sealed).encode("latin-1")}
            answered = client.get("/console/api/turns", headers=headers)
            assert answered.status_code == 200, others


def test_who_has_no_permission_learns_no_more_than_that(console: Console) -> None:
    with console.client("sw_customer") as client:
        me = client.get("/console/api/me").json()
    assert me["permissions"] == []
    assert "agents" not in me
    with console.client("sw_looks") as client:
        assert [each["name"] for each in client.get("/console/api/me").json()["agents"]] == ["only"]


def test_a_login_is_for_all_workers(logged_in: httpx2.Client) -> None:
    for _ in range(8):
        me = logged_in.get("/console/api/me").json()
        assert (me["tenant"], me["subject"], me["by"]) == ("ops", "rita", "cookie")
        assert me["permissions"] == ["look", "read"]


def test_over_https_the_cookie_is_for_https_only(console: Console) -> None:
    with console.client() as client:
        answered = client.post(
            "/console/api/login",
            json={"credential": "sw_reads"},
            headers={"x-forwarded-proto": "https"},
        )
    assert "; Secure" in answered.headers["set-cookie"]


@pytest.mark.parametrize("credential", ["sw_customer", "sw_wrong", "", "a.b.c"])
def test_no_login_without_a_permission(console: Console, credential: str) -> None:
    with console.client() as client:
        answered = client.post("/console/api/login", json={"credential": credential})
    assert answered.status_code in (401, 403)
    assert "set-cookie" not in answered.headers


@pytest.mark.parametrize(
    "path",
    ["ag-ui", "ag-ui/only", "ui/chat", "responses", "chat/completions", "memory", "", "turnsx"],
)
def test_only_what_the_page_calls_of_the_api_is_called_by_its_login(
    logged_in: httpx2.Client, path: str
) -> None:
    headers = {"x-console-token": logged_in.get("/console/api/me").json()["token"]}
    answered = logged_in.post(f"/console/api/v1/{path}", json={}, headers=headers)
    assert answered.status_code == 404


def test_forged_cookies_are_none(console: Console, logged_in: httpx2.Client) -> None:
    sealed = logged_in.cookies["seawall_console"]
    other = "A" if sealed[-9] != "A" else "B"
    for forged in (
        sealed[:-9] + other + sealed[-8:],
        sealed[:40],
        "AAAA",
        "%00",
        sealed + "x" * 9_000,
    ):
        with console.client() as client:
            answered = client.get(
                "/console/api/turns", headers={"cookie": f"seawall_console={forged}"}
            )
        assert answered.status_code == 401, forged


FORGERIES: tuple[dict[str, str], ...] = (
    {},
    {"x-console-token": "wrong"},
    {"x-console-token": "{token}", "origin": "https://evil.example"},
    {"x-console-token": "{token}", "origin": "https://shop.example"},  # may call the API, not this
    {"x-console-token": "{token}", "origin": "null"},
    {"x-console-token": "{token}", "sec-fetch-site": "cross-site"},
    {"x-console-token": "{token}", "sec-fetch-site": "same-site"},
)


@pytest.mark.parametrize("headers", FORGERIES)
def test_forged_requests_change_nothing(logged_in: httpx2.Client, headers: dict[str, str]) -> None:
    token = logged_in.get("/console/api/me").json()["token"]
    sent = {name: value.format(token=token) for name, value in headers.items()}
    answered = logged_in.post("/console/api/v1/turns", json={"text": "x"}, headers=sent)
    assert answered.status_code == 403
    assert "access-control-allow-origin" not in answered.headers
    own = logged_in.post(
        "/console/api/v1/turns", json={"text": "x"}, headers={"x-console-token": token}
    )
    assert own.status_code == 200
    logged_in.cookies.clear()
    assert logged_in.post("/console/api/v1/turns", json={"text": "x"}).status_code == 401


@pytest.mark.parametrize("path", ["/console/", "/console/assets/app.js", "/console/api/me"])
def test_no_page_embeds_the_console(console: Console, path: str) -> None:
    with console.client() as client:
        headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/console/", "/console/api/turns", "/console/api/v1/sessions"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example:{port}"},
        {"host": "127.0.0.1.rebound.example"},
        {"x-forwarded-for": "203.0.113.7"},
    ],
)
def test_no_name_that_resolves_to_this_machine(
    local: Console, path: str, headers: dict[str, str]
) -> None:
    port = local.url.rpartition(":")[2]
    sent = {name: value.format(port=port) for name, value in headers.items()}
    with local.client() as client:
        assert client.get(path).status_code == 200
        assert client.get(path, headers=sent).status_code == 401


def test_another_page_on_this_machine_does_nothing(local: Console) -> None:
    with local.client() as client:
        token = client.get("/console/api/me").json()["token"]
        own = {"x-console-token": token, "origin": local.url}
        body = {"text": "x"}
        for forged in ({"origin": "http://localhost:1"}, {"sec-fetch-site": "same-site"}):
            sent = own | forged
            refused = client.post("/console/api/v1/turns", json=body, headers=sent)
            assert refused.status_code in (401, 403), forged
        assert client.post("/console/api/v1/turns", json=body).status_code == 403
        assert client.post("/console/api/v1/turns", json=body, headers=own).status_code == 200


def test_files_are_cached_by_their_content(local: Console) -> None:
    with local.client() as client:
        first = client.get("/console/assets/console.css")
        tag = first.headers["etag"]
        again = client.get("/console/assets/console.css", headers={"if-none-match": tag})
    assert first.headers["content-type"].startswith("text/css")
    assert (again.status_code, again.content) == (304, b"")


def test_the_root_leads_to_the_console(local: Console) -> None:
    with local.client() as client:
        answered = client.get("/", follow_redirects=True)
    assert answered.url.path == "/console/"
    assert "<!doctype html>" in answered.text


def test_a_report_runs_in_a_sandbox(console: Console) -> None:
    folder = console.folder / "reports"
    (folder / "plan.html").write_text("<p>A plan</p>")
    (folder / "notes.txt").write_text("no report")
    (folder / "link.html").symlink_to(console.folder / "log")
    with console.client("sw_looks") as client:
        listed = client.get("/console/api/reports").json()
        shown = client.get("/console/reports/plan.html")
        assert client.get("/console/reports/link.html").status_code == 404
        assert client.get("/console/reports/notes.txt").status_code == 404
        (folder / "100%25.html").write_text("<p>Another</p>")
        assert client.get("/console/reports/100%2525.html").text == "<p>Another</p>"
        assert client.get("/console/reports/%2e%2e%2fsessions.db").status_code == 404
    assert [each["name"] for each in listed["reports"]] == ["plan.html"]
    assert shown.text == "<p>A plan</p>"
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy


def test_a_turn_is_recorded_if_that_is_asked_by_who_may(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        SERVER__WORKERS="1",
        IDENTITY__API_KEYS=keys(),
        CONSOLE__ENABLED="true",
        CONSOLE__LOOK="['watch']",
        CONSOLE__TURNS="5",
    ) as server:
        console = Console(server, tmp_path)
        for _ in range(110):  # until no more are recorded
            console.turn()
        asked = {"seawall-record": "1"}
        with console.client("sw_looks") as client:
            plain = client.post("/v1/turns", json={"text": "x"}).json()["turn"]
            mine = client.post("/v1/turns", json={"text": "x"}, headers=asked).json()["turn"]
            talk = client.post("/console/api/v1/turns", json={"text": "x"}).json()["turn"]
        with console.client("sw_customer") as client:
            refused = client.post("/v1/turns", json={"text": "x"}, headers=asked)
        with console.client() as client:
            anonymous = client.post("/v1/turns", json={"text": "x"}, headers=asked)
        for _ in range(8):
            console.turn()
        kept = {str(each["turn"]): each["course"] for each in rows(console)}
    assert (refused.status_code, anonymous.status_code) == (403, 401)
    assert kept[mine] is True
    assert kept[talk] is True
    assert plain not in kept


def test_the_header_that_records_is_described_where_it_is_honoured(
    local: Console, console: Console
) -> None:
    with local.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    described = {
        (path, method)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if any(each["name"] == "Seawall-Record" for each in operation.get("parameters", ()))
    }
    with console.client("sw_customer") as client:  # who may not look
        headers = {"seawall-record": "1"}
        refused = {
            (path, "post")
            for path, _ in described
            if client.post(path.replace("{agent}", "only"), json={}, headers=headers).status_code
            == 403
        }
    assert described == refused
    for path in ("/v1/turns", "/v1/chat/completions", "/v1/responses", "/v1/ui/chat", "/v1/ag-ui"):
        assert (path, "post") in described
        assert "403" in paths[path]["post"]["responses"]


def test_off_it_is_not_there(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        SERVER__WORKERS="1",
        IDENTITY__ANONYMOUS="true",
        CONSOLE__ENABLED="false",
    ) as server:
        assert httpx2.get(f"{server.url}/console/").status_code == 404
        root = httpx2.get(f"{server.url}/")
        assert "Seawall-Record" not in httpx2.get(f"{server.url}/openapi.json").text
    assert root.json() == {"name": "Seawall", "api": "openapi.json", "health": "readyz"}


def test_viewers_are_bounded_and_a_shutdown_does_not_wait_for_them(tmp_path: Path) -> None:
    with (
        serving(
            tmp_path, SERVER__WORKERS="1", IDENTITY__ANONYMOUS="true", CONSOLE__VIEWERS="1"
        ) as server,
        httpx2.stream("GET", f"{server.url}/console/api/now", timeout=20) as first,
    ):
        lines = first.iter_lines()  # dropping it would close the stream
        assert next(lines) == "event: history"
        second = httpx2.get(f"{server.url}/console/api/now", timeout=5)
        assert second.status_code == 503
        assert server.stop(10) == 0
