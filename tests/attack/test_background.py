"""A turn in the background outlives the server that took it."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from seawall.lab.sim_model.reply import SimTimes, plan_reply
from tests.attack.test_effects import ORDER, SCRIPT, WISH, _refunds
from tests.attack.test_two_servers import KINDS, read_events, settings_of, text_and_kinds
from tests.dynamodb_local import ENVIRONMENT
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server
from tests.storage.stores import NAMES

LEASE = "1.5"
ATTEMPT = 1_000_000_000


class Pair:
    """One server that is going to end, and one that stays, on one store."""

    def __init__(self, victim: ServerProcess, heir: ServerProcess, token: str) -> None:
        self.victim = victim
        self.heir = heir
        self.headers = {"authorization": f"Bearer {token}"}

    def client(self, server: ServerProcess) -> httpx2.Client:
        return httpx2.Client(base_url=server.url, headers=self.headers, timeout=30)

    def end(self, how: str) -> None:
        if how == "stopped":
            assert self.victim.stop() == 0
        else:
            self.victim.process.send_signal(signal.SIGKILL)
            self.victim.process.wait()


@pytest.fixture
def issuer() -> Issuer:
    made = Issuer()
    made.add("one")
    return made


@pytest.fixture(params=NAMES)
def settings(
    request: pytest.FixtureRequest, issuer: Issuer, tmp_path: Path
) -> Iterator[dict[str, str]]:
    kind = str(request.param)
    endpoint = request.getfixturevalue("dynamodb") if kind == "dynamodb" else ""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield settings_of(kind, tmp_path, endpoint, issuer) | {
            "SESSIONS__LEASE_SECONDS": LEASE,
            "SESSIONS__ORPHAN_SCAN_SECONDS": "0.3",
            "SERVER__DRAIN_SECONDS": "0.5",
        }


def serving(
    stack: ExitStack, folder: Path, issuer: Issuer, settings: dict[str, str], *model: str
) -> Pair:
    simulated = stack.enter_context(running_model(*model))
    victim, heir = (
        stack.enter_context(running_server(folder, simulated, **settings)) for _ in range(2)
    )
    return Pair(victim, heir, issuer.token())


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_background_turn_is_recovered_by_another_server(
    settings: dict[str, str], issuer: Issuer, tmp_path: Path, how: str
) -> None:
    slow = ("--first-token", "0.1", "--duration", "2.5", "--chunks", "20")
    with ExitStack() as stack:
        pair = serving(stack, tmp_path, issuer, settings, *slow)
        with pair.client(pair.victim) as client:
            accepted = client.post("/v1/turns", json={"text": "later", "background": True})
            assert accepted.status_code == 202
            body = {"text": "streamed", "background": True, "stream": True}
            with client.stream("POST", "/v1/turns", json=body) as stream:
                lines = stream.iter_lines()
                heard = read_events(lines, 6)
                pair.end(how)
                if how == "stopped":  # it ends without reporting a failure
                    heard += read_events(lines)
                    assert "turn.failed" not in text_and_kinds(heard)[1]
        times = SimTimes(first_token=(0.1, 0.1), duration=(2.5, 2.5), chunks=20)
        with pair.client(pair.heir) as client:
            # Where nothing had been heard yet, and where something had.
            for where, last, text in (
                (accepted.json()["events"], 0, "later"),
                (f"/v1/turns/{heard[0][2]['turn']}/events", heard[-1][0], "streamed"),
            ):
                answer = client.get(where, headers={"last-event-id": str(last)})
                assert answer.status_code == 200, answer.text
                events = read_events(answer)
                assert text_and_kinds(events) == (plan_reply(0, text, times).text, KINDS)
                assert events[0][0] == ATTEMPT + 1  # anew, from the start
                assert events[-1][2]["version"] == 1
                session = client.get(f"/v1/sessions/{events[-1][2]['session']}").json()
                assert [each["id"] for each in session["turns"]] == [events[0][2]["turn"]]


def test_a_recovered_turns_effect_happens_once(issuer: Issuer, tmp_path: Path) -> None:
    """Killed between a tool's change and the commit."""
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    settings = settings_of("sqlite", tmp_path, "", issuer) | {
        "SESSIONS__LEASE_SECONDS": LEASE,
        "SESSIONS__ORPHAN_SCAN_SECONDS": "0.3",
        "EFFECTS__TOOLS__CANCEL_PENDING_ORDER__APPROVE": "never",
    }
    with ExitStack() as stack:
        script = ("--script", str(tmp_path / "script.json"))
        pair = serving(stack, tmp_path, issuer, settings, *script)
        body = {"text": WISH, "agent": "orders", "background": True, "stream": True}
        with (
            pair.client(pair.victim) as client,
            client.stream("POST", "/v1/turns", json=body) as stream,
        ):
            lines = stream.iter_lines()
            heard = read_events(lines, 1)
            while text_and_kinds(heard)[1].count("tool.returned") < 2:
                heard += (more := read_events(lines, 1))
                assert more, heard
            pair.end("killed")
        assert _refunds(tmp_path / "store.db") == 1
        with pair.client(pair.heir) as client:
            events = read_events(client.get(f"/v1/turns/{heard[0][2]['turn']}/events"))
            assert text_and_kinds(events)[0].startswith("It is cancelled.")
            assert not any(data["failed"] for _, name, data in events if name == "tool.returned")
        assert _refunds(tmp_path / "store.db") == 1
        assert ORDER in json.dumps(events)


def test_a_background_turn_is_abandoned_with_a_reason(
    settings: dict[str, str], issuer: Issuer, tmp_path: Path
) -> None:
    settings |= {"SESSIONS__BACKGROUND_ATTEMPTS": "1"}
    with ExitStack() as stack:
        pair = serving(stack, tmp_path, issuer, settings, "--duration", "20")
        with pair.client(pair.victim) as client:
            accepted = client.post("/v1/turns", json={"text": "later", "background": True}).json()
            pair.end("killed")
        with pair.client(pair.heir) as client:
            for _ in range(2):  # and it stays so
                answer = client.get(accepted["events"])
                assert (answer.status_code, answer.json()["code"]) == (503, "turn-abandoned")
        other_user = {"authorization": f"Bearer {issuer.token('eve')}"}
        other = httpx2.get(f"{pair.heir.url}{accepted['events']}", headers=other_user, timeout=30)
        assert (other.status_code, other.json()["code"]) == (404, "turn-not-found")
