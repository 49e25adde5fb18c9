"""Budgets and quotas through HTTP: two servers on one store, a model that counts its calls."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.dynamodb_local import ENVIRONMENT
from tests.hosts.conftest import events, identity
from tests.issuer import Issuer
from tests.servers import ServerProcess, command, running_model, running_server
from tests.storage.stores import NAMES, new_location

LIMIT = 2_000
BUDGETS = f"""{{
    small = {{tokens_per_day = {LIMIT}}}, crowd = {{tokens_per_day = {LIMIT}}},
    poor = {{money_per_month = 0.001}}, cut = {{tokens_per_day = 1000000}},
    nothing = {{tokens_per_month = 0}}
}}""".replace("\n", " ")


class Fleet:
    """Servers on one store, the model behind them, and where an operator finds the store."""

    def __init__(
        self,
        servers: list[ServerProcess],
        model: ServerProcess,
        issuer: Issuer,
        shell: dict[str, str],
    ) -> None:
        self.servers = servers
        self.model = model
        self.issuer = issuer
        self.shell = shell

    def ask(self, tenant: str, server: int = 0, **body: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.issuer.token(tenant=tenant)}"}
        if key := body.pop("key", None):
            headers["idempotency-key"] = key
        url = f"{self.servers[server].url}/v1/turns"
        return httpx2.post(url, json={"text": "Hello"} | body, headers=headers, timeout=30)

    def asked(self) -> int:
        """How often the model was asked."""
        stats = httpx2.get(f"{self.model.url.removesuffix('/v1')}/sim/stats").json()
        return int(stats["started"])

    def shown(self, tenant: str) -> list[dict[str, Any]]:
        """What an operator is shown of a tenant's budgets."""
        done = command(
            *("budgets", "show", "--json", "--config", "examples/store/seawall.toml"),
            *("--tenant", tenant),
            environment=self.shell,
        )
        assert done.returncode == 0, done.stderr
        shown: list[dict[str, Any]] = json.loads(done.stdout)["budgets"]
        return shown


@contextmanager
def running_fleet(
    kind: str, endpoint: str, folder: Path, issuer: Issuer, **settings: str
) -> Iterator[Fleet]:
    everything = {
        "SERVER__WORKERS": "1",
        "MODELS__DEFAULT__PRICE": "{prompt = 1.0, completion = 2.0}",
        "BUDGETS__TENANTS": BUDGETS,
        **identity(folder, issuer),
        **settings,
    }
    if kind == "dynamodb":
        everything |= {
            "SESSIONS__STORE": "dynamodb",
            "SESSIONS__TABLE": new_location(kind),
            "SESSIONS__ENDPOINT": endpoint,
            "SESSIONS__CREATE_TABLE": "true",
        }
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        model = stack.enter_context(running_model("--first-token", "0.02", "--duration", "0.3"))
        servers = [
            stack.enter_context(running_server(folder, model, **everything)) for _ in range(2)
        ]
        shell = {f"SEAWALL_{name}": value for name, value in everything.items()}
        shell["SEAWALL_SESSIONS__PATH"] = str(folder / "sessions.db")
        yield Fleet(servers, model, issuer, shell)


@pytest.fixture(scope="module", params=NAMES)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Iterator[Fleet]:
    endpoint = request.getfixturevalue("dynamodb") if request.param == "dynamodb" else ""
    folder = tmp_path_factory.mktemp(request.param)
    with running_fleet(request.param, endpoint, folder, issuer) as fleet:
        yield fleet


def tokens_of(answer: httpx2.Response) -> int:
    usage = answer.json()["usage"]
    return int(usage["prompt_tokens"]) + int(usage["completion_tokens"])


def test_a_tenant_with_an_exhausted_budget_is_refused_and_others_are_not(fleet: Fleet) -> None:
    first = fleet.ask("small", key="first")
    spent = tokens_of(first)
    refusals = 0
    for number in range(60):
        answer = fleet.ask("small", number % 2)
        if answer.status_code == 200:
            spent, refusals = spent + tokens_of(answer), 0
        elif (refusals := refusals + 1) == 2:  # by both; one may still have a rest
            break
    asked = fleet.asked()
    assert LIMIT - tokens_of(first) < spent < LIMIT + 2 * tokens_of(first)
    for server in (0, 1):  # whichever it asks
        refused = fleet.ask("small", server)
        assert refused.status_code == 429
        problem = refused.json()
        assert problem["code"] == "budget-exhausted"
        assert problem["field"] == "budget.tokens_per_day"
        midnight = 86_400 - time.time() % 86_400
        assert abs(int(refused.headers["retry-after"]) - midnight) < 60 or midnight < 60
        assert "small" not in refused.text
    assert fleet.asked() == asked
    replayed = fleet.ask("small", 1, key="first")  # it was paid for when it was answered
    assert (replayed.status_code, replayed.json()["text"]) == (200, first.json()["text"])
    assert fleet.asked() == asked
    assert fleet.ask("another-subject").status_code == 200
    [state] = fleet.shown("small")
    assert state["budget"] == "tokens_per_day"
    assert spent <= state["used"] <= spent + 2 * 1_000  # and what the servers have set aside
    assert state["left"] == max(0, LIMIT - state["used"])


def test_a_crowd_on_two_servers_overdraws_by_no_more_than_its_turns_in_flight(
    fleet: Fleet,
) -> None:
    at_once = 12
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda number: fleet.ask("crowd", number % 2), range(60)))
    served = [tokens_of(answer) for answer in answers if answer.status_code == 200]
    refused = [answer.json()["code"] for answer in answers if answer.status_code != 200]
    assert set(refused) == {"budget-exhausted"}
    assert sum(served) <= LIMIT + at_once * max(served)
    [state] = fleet.shown("crowd")
    assert state["used"] >= sum(served)


def test_money(fleet: Fleet) -> None:
    spent = 0.0
    for _ in range(30):
        answer = fleet.ask("poor", stream=True)
        if answer.status_code != 200:
            break
        [usage] = [each for each in events(answer.text) if each["type"] == "usage"]
        cost, counted = usage["cost"], usage["usage"]
        assert isinstance(cost, dict)
        assert isinstance(counted, dict)
        expected = (counted["prompt_tokens"] * 1.0 + counted["completion_tokens"] * 2.0) / 1e6
        assert cost == {"amount": pytest.approx(expected), "currency": "USD"}
        spent += expected
    assert 0.001 <= spent < 0.001 + expected * 1.01
    assert fleet.ask("poor").json()["field"] == "budget.money_per_month"
    metrics = httpx2.get(f"{fleet.servers[0].url}/metrics").text
    found = re.search(r'seawall_model_cost_total{currency="USD",model="default"} (\S+)', metrics)
    assert found
    assert float(found[1]) >= spent * 0.999


def test_nothing_is_spent_before_the_budget_is_checked(fleet: Fleet) -> None:
    asked = fleet.asked()
    for body in ({}, {"stream": True}, {"background": True}, {"key": "k"}):
        answer = fleet.ask("nothing", **body)
        if body.get("background"):
            continue
        said = answer.text
        assert "budget-exhausted" in said
        assert "budget.tokens_per_month" in said
    assert fleet.asked() == asked


def test_a_turn_cancelled_by_its_client_is_charged(fleet: Fleet) -> None:
    headers = {"authorization": f"Bearer {fleet.issuer.token(tenant='cut')}"}
    url = f"{fleet.servers[0].url}/v1/turns"
    before = fleet.shown("cut")[0]["used"]
    assert before == 0
    body = {"text": "Hello", "stream": True}
    with httpx2.stream("POST", url, json=body, headers=headers, timeout=30) as answer:
        for line in answer.iter_lines():
            if "text.delta" in line:
                break
    for _ in range(100):
        metrics = httpx2.get(f"{fleet.servers[0].url}/metrics").text
        if 'outcome="cancelled"' in metrics:
            break
        time.sleep(0.05)
    assert fleet.shown("cut")[0]["used"] > 0


@pytest.mark.parametrize("kind", NAMES)
def test_two_servers_do_not_exceed_a_quota_together(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, issuer: Issuer
) -> None:
    endpoint = request.getfixturevalue("dynamodb") if kind == "dynamodb" else ""
    quota = {
        "QUOTAS__ACCOUNT__REQUESTS_PER_MINUTE": "120",
        "QUOTAS__ACCOUNT__WINDOW_SECONDS": "5",  # ten at once, two a second
        "MODELS__DEFAULT__QUOTA": "account",
        "TURN__TURN": "4",
    }
    with running_fleet(kind, endpoint, tmp_path, issuer, **quota) as fleet:
        began = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda number: fleet.ask("a", number % 2), range(60)))
        made = fleet.asked()
        flowed = 2 * (time.monotonic() - began)
        assert 10 <= made <= 10 + flowed + 5  # and a half for what the two hold
        served = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(served) <= made
        assert refused
        for answer in refused:
            # The turn's deadline may pass while it is being answered or stored.
            assert answer.status_code in (429, 503, 504)
            if answer.status_code != 504:
                assert answer.json()["code"] in ("quota-exhausted", "commit-unknown")
                assert int(answer.headers["retry-after"]) >= 1
