"""Two server processes on one store behind a real balancer, for one client."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from seawall.lab.sim_model.reply import SimTimes, plan_reply
from tests.attack.balancer import require_balancer, running_balancer
from tests.dynamodb_local import ENVIRONMENT
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.servers import ServerProcess, running_model, running_server
from tests.storage.stores import NAMES, new_location

Event = tuple[int, str, dict[str, object]]
LEASE = 2.0
KINDS = ["turn.started", "intent.detected", "agent.selected", "usage", "turn.completed"]


class Fleet:
    """The servers, what is in front of them, and the model behind."""

    def __init__(
        self, servers: list[ServerProcess], front: str, model: ServerProcess, issuer: Issuer
    ) -> None:
        self.servers = servers
        self.front = front
        self.model = model
        self.issuer = issuer

    def client(self, subject: str = "ada", url: str = "") -> httpx2.Client:
        token = self.issuer.token(subject)
        return httpx2.Client(
            base_url=url or self.front, headers={"authorization": f"Bearer {token}"}, timeout=30
        )

    def asked(self) -> int:
        """How often the model was asked."""
        stats = httpx2.get(f"{self.model.url.removesuffix('/v1')}/sim/stats").json()
        return int(stats["started"])


def settings_of(kind: str, folder: Path, endpoint: str, issuer: Issuer) -> dict[str, str]:
    (folder / "jwks.json").write_bytes(issuer.key_set())
    settings = {
        "IDENTITY__JWT__ISSUER": ISSUER,
        "IDENTITY__JWT__AUDIENCE": AUDIENCE,
        "IDENTITY__JWT__JWKS_FILE": str(folder / "jwks.json"),
        "SESSIONS__LEASE_SECONDS": str(LEASE),
        "SERVER__WORKERS": "1",
    }
    if kind == "dynamodb":
        settings |= {
            "SESSIONS__STORE": "dynamodb",
            "SESSIONS__TABLE": new_location(kind),
            "SESSIONS__ENDPOINT": endpoint,
            "SESSIONS__CREATE_TABLE": "true",
        }
    return settings


@pytest.fixture(scope="module", params=NAMES)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    require_balancer()
    endpoint = request.getfixturevalue("dynamodb") if request.param == "dynamodb" else ""
    folder = tmp_path_factory.mktemp(request.param)
    issuer = Issuer()
    issuer.add("one")
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        with ExitStack() as stack:
            quick = {"match": "re:^turn ", "steps": [{"text": "at once"}]}
            (folder / "script.json").write_text(json.dumps({"conversations": [quick]}))
            script = ("--script", str(folder / "script.json"))
            model = stack.enter_context(
                running_model("--first-token", "0.1", "--duration", "0.8", *script)
            )
            settings = settings_of(request.param, folder, endpoint, issuer)
            servers = [
                stack.enter_context(running_server(folder, model, **settings)) for _ in range(2)
            ]
            front = stack.enter_context(running_balancer([each.url for each in servers]))
            yield Fleet(servers, front, model, issuer)
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_events(source: httpx2.Response | Iterator[str], most: int = 1_000_000) -> list[Event]:
    """Events of a stream, at most `most`; to continue, pass the same iterator of lines again."""
    events: list[Event] = []
    number, name = 0, ""
    for line in source.iter_lines() if isinstance(source, httpx2.Response) else source:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            events.append((number, name, json.loads(line[6:])))
            if len(events) >= most:
                break
    return events


def text_and_kinds(events: list[Event]) -> tuple[str, list[str]]:
    """The text, and the names of everything else."""
    text = "".join(str(data["text"]) for _, name, data in events if name == "text.delta")
    return text, [name for _, name, _ in events if name != "text.delta"]


def test_a_session_spans_both_servers(fleet: Fleet) -> None:
    served: set[str] = set()
    with fleet.client("both") as client:
        session: str | None = None
        for number in range(1, 21):
            answer = client.post("/v1/turns", json={"text": f"turn {number}", "session": session})
            assert answer.status_code == 200, answer.text
            session = answer.json()["session"]
            assert answer.json()["version"] == number
            served.add(answer.headers["x-served-by"])
        shown = client.get(f"/v1/sessions/{session}").json()
    assert [each["messages"][0]["text"] for each in reversed(shown["turns"])] == [
        f"turn {number}" for number in range(1, 21)
    ]
    assert len(served) == 2


def test_a_broken_stream_resumes_on_any_server(fleet: Fleet) -> None:
    """Cut at a random event, then resumed through the balancer, wherever that leads."""
    chance = random.Random(3)

    def cut(number: int) -> None:
        body = {"text": f"cut {number}", "background": True, "stream": True}
        most = chance.randint(1, 25)
        with fleet.client("cutter") as client:
            with client.stream("POST", "/v1/turns", json=body) as response:
                first = read_events(response, most)
            turn = str(first[0][2]["turn"])
            last = first[-1][0]
            while True:  # and cut again now and then
                with client.stream(
                    "GET", f"/v1/turns/{turn}/events", headers={"last-event-id": str(last)}
                ) as response:
                    assert response.status_code == 200, response.read()
                    more = read_events(response, chance.choice([3, 1_000]))
                first += more
                if not more or more[-1][1] == "turn.completed":
                    break
                last = more[-1][0]
            whole = read_events(client.get(f"/v1/turns/{turn}/events"))
        # As of an unbroken stream: the simulated model's text is known beforehand.
        assert (
            text_and_kinds(first)
            == text_and_kinds(whole)
            == (plan_reply(0, f"cut {number}", SimTimes()).text, KINDS)
        )
        positions = [position for position, _, _ in first]
        assert positions == sorted(set(positions))
        assert positions[-1] == whole[-1][0]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cut, range(24)))


def test_a_background_turn_needs_no_client(fleet: Fleet) -> None:
    with fleet.client("away") as client:
        accepted = client.post("/v1/turns", json={"text": "later", "background": True})
        assert accepted.status_code == 202
        assert accepted.headers["location"] == accepted.json()["events"]
        # While it is in progress, no other turn may have its session, on any server.
        after = client.post(
            "/v1/turns", json={"text": "and then", "session": accepted.json()["session"]}
        )
        assert after.json()["version"] == 2
        for server in fleet.servers:
            with fleet.client("away", server.url) as direct:
                events = read_events(direct.get(accepted.json()["events"]))
                assert text_and_kinds(events)[1][-1] == "turn.completed"
    with fleet.client("another-user") as other:
        hidden = other.get(accepted.json()["events"])
        assert (hidden.status_code, hidden.json()["code"]) == (404, "turn-not-found")


def test_a_key_is_one_turn_on_any_server(fleet: Fleet) -> None:
    before = fleet.asked()
    headers = {"idempotency-key": f"key-{random.random()}"}

    def send(_: int) -> httpx2.Response:
        with fleet.client("keyed") as client:
            return client.post("/v1/turns", json={"text": "only once"}, headers=headers)

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(send, range(6)))
    assert [each.status_code for each in answers] == [200] * 6
    assert len({each.json()["turn"] for each in answers}) == 1
    assert len({each.json()["text"] for each in answers}) == 1
    assert sum(not each.json()["replayed"] for each in answers) == 1
    assert {each.headers["x-served-by"] for each in answers} == {"s0", "s1"}
    assert fleet.asked() == before + 1
    with fleet.client("keyed") as client:
        other = client.post("/v1/turns", json={"text": "something else"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


def test_a_joined_turn_is_streamed_live(fleet: Fleet) -> None:
    """On the server that runs it; the first client may disconnect meanwhile."""
    headers = {"idempotency-key": f"key-{random.random()}"}
    body = {"text": "joined", "stream": True}
    with fleet.client("joiner", fleet.servers[0].url) as client:
        with client.stream("POST", "/v1/turns", json=body, headers=headers) as first:
            lines = first.iter_lines()
            assert next(lines).startswith("event: turn.started")
            with client.stream("POST", "/v1/turns", json=body, headers=headers) as second:
                heard = second.iter_lines()
                events = read_events(heard, 4)
                assert events[-1][1] == "text.delta"
                first.close()
                rest = read_events(heard)
        assert rest[-1][1] == "turn.completed"
        assert rest[-1][2]["replayed"] is True


def test_a_session_is_available_again_after_its_server_was_killed(
    fleet: Fleet, tmp_path: Path
) -> None:
    """kill -9 in the middle of a turn: no lost turn, no second effect, no session locked up."""
    with fleet.client("killed") as client:
        session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
    environment = _environment_of(fleet.servers[0])
    headers = {"idempotency-key": f"key-{random.random()}"}
    body = {"text": "in the middle", "session": session}
    with (
        running_server(tmp_path, fleet.model, **environment) as victim,
        fleet.client("killed", victim.url) as client,
        client.stream("POST", "/v1/turns", json=body | {"stream": True}, headers=headers) as dying,
    ):
        lines = dying.iter_lines()
        read_events(lines, 5)
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
    with fleet.client("killed") as client:
        began = time.monotonic()
        answer = client.post("/v1/turns", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["version"], answer.json()["replayed"]) == (2, False)
        assert time.monotonic() - began < LEASE + 20  # not as long as a turn may take
        again = client.post("/v1/turns", json=body, headers=headers)
        assert (again.json()["version"], again.json()["replayed"]) == (2, True)
        assert client.get(f"/v1/sessions/{session}").json()["version"] == 2


def test_a_concurrent_turn_is_refused_if_configured(fleet: Fleet, tmp_path: Path) -> None:
    environment = _environment_of(fleet.servers[0]) | {"SESSIONS__WHEN_BUSY": "refuse"}
    with (
        running_server(tmp_path, fleet.model, **environment) as server,
        fleet.client("refused", server.url) as client,
    ):
        session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
        body = {"text": "first", "session": session, "stream": True}
        with client.stream("POST", "/v1/turns", json=body) as first:
            lines = first.iter_lines()
            read_events(lines, 4)
            second = client.post("/v1/turns", json={"text": "second", "session": session})
            assert read_events(lines)[-1][1] == "turn.completed"
        third = client.post("/v1/turns", json={"text": "third", "session": session})
        assert (third.status_code, third.json()["version"]) == (200, 3)
        assert (second.status_code, second.json()["code"]) == (409, "session-busy")
        assert int(second.headers["retry-after"]) >= 1


def _environment_of(server: ServerProcess) -> dict[str, str]:
    """The settings that a server was started with, for another one on the same store."""
    return {
        name.removeprefix("SEAWALL_"): value
        for name, value in server.environment.items()
        if name.startswith("SEAWALL_")
        and "__" in name
        and name != "SEAWALL_MODELS__DEFAULT__BASE_URL"
    }
