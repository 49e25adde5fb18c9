"""Answer cache over HTTP, with a simulated model that counts."""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from seawall import Orchestrator, tool
from seawall.config import parse_settings
from seawall.errors import ConfigError
from tests.hosts.conftest import events
from tests.hosts.test_interruptions import eventually
from tests.servers import ServerProcess, running_model, running_server

PEOPLE = ("acme/ada", "acme/bob", "other/ada")
CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "simulated"
[agents.{first}]
instructions = "Help."
[agents.{first}.cache]
seconds = 60
scope = "{scope}"
[agents.plain]
instructions = "Help."
[routing]
default_agent = "{first}"
"""


class Shop:
    """A server with a cacheable agent, and the model behind it."""

    def __init__(self, server: ServerProcess, model: ServerProcess, folder: Path) -> None:
        self.server = server
        self.model = model
        self.database = folder / "sessions.db"

    def ask(
        self, subject: str, text: str = "Do you sell tents?", **more: object
    ) -> httpx2.Response:
        with httpx2.Client(
            base_url=self.server.url, headers={"x-api-key": f"sw_{subject}"}, timeout=30
        ) as client:
            return client.post("/v1/turns", json={"text": text, **more})

    def stats(self) -> dict[str, int]:
        root = self.model.url.removesuffix("/v1")
        stats: dict[str, int] = httpx2.get(f"{root}/sim/stats", timeout=10).json()
        return stats

    def stored(self) -> int:
        with closing(sqlite3.connect(self.database)) as database:
            count: int = database.execute("SELECT count(*) FROM turns").fetchone()[0]
        return count


@pytest.fixture(params=["subject", "tenant"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seconds() -> float:
    """How long the model takes for an answer; tests that do not interrupt it need less."""
    return 1.5


@pytest.fixture
def shop(tmp_path: Path, scope: str, seconds: float) -> Iterator[Shop]:
    source = tmp_path / "seawall.toml"
    store = '[tools.store]\nfactory = "examples.store.tools:open_store"\n'
    source.write_text(CONFIGURATION.format(first="cached", scope=scope) + store)
    keys = ", ".join(
        '{{sha256 = "{}", tenant = "{}", subject = "{}"}}'.format(
            hashlib.sha256(f"sw_{subject}".encode()).hexdigest(), *subject.split("/")
        )
        for subject in PEOPLE
    )
    environment = {"IDENTITY__API_KEYS": f"[{keys}]", "SERVER__WORKERS": "1"}
    with (
        running_model("--first-token", f"{seconds / 5}", "--duration", f"{seconds}") as model,
        running_server(tmp_path, model, str(source), **environment) as server,
    ):
        yield Shop(server, model, tmp_path)


def test_concurrent_equal_questions_share_one_call(shop: Shop, scope: str) -> None:
    askers = [PEOPLE[0]] * 8 + ([PEOPLE[1]] * 8 if scope == "tenant" else [])
    with ThreadPoolExecutor(len(askers)) as threads:
        answers = list(threads.map(shop.ask, askers))
    assert [each.status_code for each in answers] == [200] * len(askers)
    bodies = [each.json() for each in answers]
    assert len({each["text"] for each in bodies}) == 1
    assert len({each["session"] for each in bodies}) == shop.stored() == len(askers)
    assert shop.stats()["started"] == 1
    assert sum(each["usage"]["model_calls"] for each in bodies) == 1
    assert sum(each.get("cached", False) for each in bodies) == len(askers) - 1
    again = shop.ask(PEOPLE[0], "  Do you  sell tents? ", stream=True)
    streamed = events(again.text)
    kinds = [each["type"] for each in streamed]
    assert (kinds[0], kinds[-2:]) == ("turn.started", ["usage", "turn.completed"])
    assert (
        "".join(str(each["text"]) for each in streamed if each["type"] == "text.delta")
        == (bodies[0]["text"])
    )
    assert streamed[-1]["cached"] is True
    assert shop.stats()["started"] == 1
    metrics = httpx2.get(f"{shop.server.url}/metrics").text
    assert f"seawall_cached_turns_total {float(len(askers))}" in metrics


def _streamed(answer: httpx2.Response) -> str:
    """The text of a stream; its events have their positions in order."""
    assert answer.status_code == 200
    positions = [int(line[4:]) for line in answer.text.splitlines() if line.startswith("id: ")]
    assert positions == sorted(positions)
    found = [each for each in events(answer.text) if each["type"] == "text.delta"]
    return "".join(str(each["text"]) for each in found)


@pytest.mark.parametrize("seconds", [0.3])
def test_all_of_a_streamed_answer_is_shared_and_kept(shop: Shop) -> None:
    """Also what passes from the model to the first client without a task."""
    asker = PEOPLE[0]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(shop.ask, asker, stream=True) for _ in range(4)]
        texts = [_streamed(each.result()) for each in asked]
    kept = shop.ask(asker, stream=True)
    assert {"cached": True}.items() <= events(kept.text)[-1].items()
    whole = shop.ask(asker).json()
    assert whole["cached"]
    for text in (*texts, _streamed(kept), whole["text"]):
        assert text == texts[0]
    stored = shop.ask(asker, agent="plain").json()["text"]
    assert len(texts[0]) > 0.5 * len(stored), "it is not only the beginning of an answer"
    assert shop.stats()["started"] == 2


@pytest.mark.parametrize("seconds", [0.3])
def test_no_answer_is_reused_outside_its_scope(shop: Shop, scope: str) -> None:
    asked = 0
    for subject in PEOPLE:
        cached = shop.ask(subject).json().get("cached", False)
        assert cached == (scope == "tenant" and subject == "acme/bob")
        asked += not cached
    assert shop.stats()["started"] == asked
    with ThreadPoolExecutor(3) as threads:  # and at the same time
        answers = list(threads.map(lambda subject: shop.ask(subject, "And stoves?").json(), PEOPLE))
    assert sum(not each.get("cached", False) for each in answers) == asked
    assert not answers[2].get("cached", False)
    assert shop.stats()["started"] == 2 * asked


@pytest.mark.parametrize("seconds", [0.1])
def test_answers_that_depend_on_more_than_the_question_are_not_reused(shop: Shop) -> None:
    first = shop.ask(PEOPLE[0]).json()
    for more in ({"session": first["session"]}, {"agent": "plain"}):
        assert "cached" not in shop.ask(PEOPLE[0], **more).json()
    for text in ("do you sell tents?", "Do you sell tent s?"):
        assert "cached" not in shop.ask(PEOPLE[0], text).json()
    messages = [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Do you sell tents?"},
    ]
    before = shop.stats()["started"]
    httpx2.post(
        f"{shop.server.url}/v1/chat/completions",
        json={"model": "cached", "messages": messages},
        headers={"x-api-key": f"sw_{PEOPLE[0]}"},
        timeout=30,
    ).raise_for_status()
    assert shop.stats()["started"] == before + 1
    stranger = httpx2.post(f"{shop.server.url}/v1/turns", json={"text": "Do you sell tents?"})
    assert stranger.status_code == 401


@pytest.mark.parametrize("scope", ["subject"])
@pytest.mark.parametrize("first_to_go", [True, False])
def test_a_client_that_disconnects_does_not_end_it_for_others(
    shop: Shop, first_to_go: bool
) -> None:
    def disconnect() -> None:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{shop.server.url}/v1/turns",
                json={"text": "Do you sell tents?"},
                headers={"x-api-key": f"sw_{PEOPLE[0]}"},
                timeout=1.0,
            )

    found: list[httpx2.Response] = []
    stay = threading.Thread(target=lambda: found.append(shop.ask(PEOPLE[0])))
    go = threading.Thread(target=disconnect)
    order = [go, stay] if first_to_go else [stay, go]
    order[0].start()
    eventually(lambda: shop.stats()["started"] == 1)
    order[1].start()
    for each in order:
        each.join()
    assert found[0].status_code == 200
    assert shop.stats()["started"] == shop.stored() == 1
    stats = shop.stats()
    assert (stats["completed"], stats["cancelled"]) == (1, 0)


@pytest.mark.parametrize("scope", ["subject"])
def test_the_model_call_is_cancelled_when_all_clients_disconnect(shop: Shop) -> None:
    def disconnect(_: int) -> None:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{shop.server.url}/v1/turns",
                json={"text": "Do you sell tents?"},
                headers={"x-api-key": f"sw_{PEOPLE[0]}"},
                timeout=0.8,
            )

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(disconnect, range(3)))
    eventually(lambda: shop.stats()["open_streams"] == 0)
    time.sleep(0.1)
    assert (shop.stored(), shop.stats()["started"]) == (0, 1)
    assert shop.ask(PEOPLE[0]).json().get("cached") is None


async def _read(order: str) -> str:
    """Look something up."""
    return order


@pytest.mark.parametrize(
    ("scope", "options", "refusal"),
    [
        ("subject", {}, "not declared cacheable"),
        ("subject", {"mutating": True}, "not declared cacheable"),
        ("tenant", {"cache_seconds": 5.0}, "not declared shared"),
        ("tenant", {"cache_seconds": 5.0, "shared": True}, ""),
        ("subject", {"cache_seconds": 5.0}, ""),
    ],
)
async def test_an_agent_whose_tools_are_not_cacheable_is_not(
    tmp_path: Path, scope: str, options: dict[str, object], refusal: str
) -> None:
    """Also where it can only be reached by handing over."""

    text = CONFIGURATION.format(first="first", scope=scope)
    text = text.replace("[agents.first.cache]", 'handoffs = ["plain"]\n[agents.first.cache]')
    text = text.replace("[routing]", 'tools = ["read"]\n[routing]')
    text += f'[sessions]\npath = "{tmp_path}/s.db"\n'
    app = Orchestrator(parse_settings(text))
    app.tool(_read, name="read", **options)
    if refusal:
        with pytest.raises(ConfigError, match=refusal):
            await app.open()
    else:
        async with app:
            assert app.ready
    assert tool(_read).cache_seconds is None
