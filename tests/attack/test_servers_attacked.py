"""Real servers on one store that are killed again and again, behind proxies that lose answers."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx2
import msgspec
import pytest

from seawall.turn import AssistantMessage, TurnRecord, Usage, UserMessage
from tests.attack.history import Operation, violations
from tests.attack.proxy import LossyProxy, running_proxy
from tests.attack.test_two_servers import settings_of
from tests.dynamodb_local import ENVIRONMENT
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server
from tests.storage.stores import NAMES

CLIENTS = 10
KILLS = 2
PATIENCE = 60.0


class Slot:
    """One server at a time; after a kill, another one on the same store."""

    def __init__(self, folder: Path, model: ServerProcess, settings: dict[str, str]) -> None:
        self._start = partial(running_server, folder, model, **settings)
        self._stack = ExitStack()
        self._server: ServerProcess | None = None

    def fill(self, proxy: LossyProxy) -> None:
        """Start a server; the proxy forwards to it."""
        self._stack.close()
        self._server = self._stack.enter_context(self._start())
        proxy.point_at(self._server.url)

    def kill(self) -> None:
        """Without any shutdown."""
        assert self._server is not None
        self._server.process.send_signal(signal.SIGKILL)
        self._server.process.wait()

    def close(self) -> None:
        """Stop the server."""
        self._stack.close()


class Crowd:
    """Clients that share sessions, repeat requests, disconnect early, and retry until answered."""

    def __init__(self, proxies: list[LossyProxy], token: str, sessions: list[str]) -> None:
        self._proxies = proxies
        self._headers = {"authorization": f"Bearer {token}"}
        self._sessions = sessions
        self.operations: list[Operation] = []
        self._lock = threading.Lock()

    def bring(self, name: str, chance: random.Random) -> None:
        """One turn, sent until it is acknowledged; perhaps once more after that."""
        session = chance.choice(self._sessions)
        deadline = time.monotonic() + PATIENCE
        wanted = 2 if chance.random() < 0.2 else 1
        while wanted:
            assert time.monotonic() < deadline, f"{name} was never acknowledged"
            at_once = 2 if chance.random() < 0.2 else 1
            first = chance.randrange(len(self._proxies))
            urls = [self._proxies[(first + each) % 2].url for each in range(at_once)]
            # Some clients disconnect while the turn is in progress.
            seconds = chance.choice([0.02, 0.05]) if chance.random() < 0.1 else 10.0
            if at_once == 1:
                done = self._send(urls[0], session, name, seconds)
            else:
                with ThreadPoolExecutor(at_once) as threads:
                    done = any(
                        list(threads.map(lambda url: self._send(url, session, name, 10.0), urls))
                    )
            if done:
                wanted -= 1
            else:
                time.sleep(chance.random() * 0.1)

    def _send(self, url: str, session: str, name: str, seconds: float) -> bool:
        headers = self._headers | {"idempotency-key": name}
        body = {"text": name, "session": session}
        tried = Operation(session, name, time.monotonic())
        try:
            answer = httpx2.post(f"{url}/v1/turns", json=body, headers=headers, timeout=seconds)
        except httpx2.TransportError:
            self._note(tried)
            return False
        if answer.status_code == 200:
            said = answer.json()
            assert said["session"] == session
            done = msgspec.structs.replace(
                tried, ended=time.monotonic(), number=said["version"], turn=said["turn"]
            )
            self._note(done)
            return True
        # A turn that could not be done must fail with one of these codes.
        code = answer.json()["code"]
        assert code in {"session-busy", "session-conflict", "overloaded"}, answer.text
        self._note(tried)
        return False

    def _note(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(
    kind: str, issuer: Issuer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, str]]:
    endpoint = request.getfixturevalue("dynamodb") if kind == "dynamodb" else ""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield settings_of(kind, tmp_path, endpoint, issuer) | {"SESSIONS__LEASE_SECONDS": "1"}


@pytest.fixture
def issuer() -> Issuer:
    made = Issuer()
    made.add("one")
    return made


def test_no_turn_is_lost_or_done_twice(
    kind: str, settings: dict[str, str], issuer: Issuer, tmp_path: Path
) -> None:
    turns = 40 if kind == "dynamodb" else 90
    with ExitStack() as stack:
        model = stack.enter_context(
            running_model("--first-token", "0.01..0.03", "--duration", "0.03..0.1")
        )
        proxies = [stack.enter_context(running_proxy(seed)) for seed in (1, 2)]
        slots = [Slot(tmp_path, model, settings) for _ in proxies]
        for slot, proxy in zip(slots, proxies, strict=True):
            stack.callback(slot.close)
            slot.fill(proxy)
        client = stack.enter_context(
            httpx2.Client(headers={"authorization": f"Bearer {issuer.token()}"}, timeout=30)
        )
        calm = "http://{}:{}".format(*proxies[0].target)
        opening = [
            client.post(f"{calm}/v1/turns", json={"text": f"open {each}"}).json()
            for each in range(3)
        ]
        crowd = Crowd(proxies, issuer.token(), [each["session"] for each in opening])
        crowd.operations += [
            Operation(each["session"], f"open {number}", 0.0, 0.0, 1, each["turn"])
            for number, each in enumerate(opening)
        ]
        with ThreadPoolExecutor(CLIENTS) as threads:
            wanted: list[Future[None]] = []
            kills = 0
            while kills < KILLS or len(wanted) < turns:
                waiting = sum(not each.done() for each in wanted)
                if waiting < 2 * CLIENTS:  # they keep coming, however long a server takes to start
                    number = len(wanted)
                    wanted.append(
                        threads.submit(crowd.bring, f"turn-{number}", random.Random(number))
                    )
                    continue
                done = len(wanted) - waiting
                if kills == KILLS or done < turns * (kills + 1) / (KILLS + 2):
                    time.sleep(0.02)
                elif _turns_run(model):
                    slots[kills % 2].kill()  # in the middle of turns
                    slots[kills % 2].fill(proxies[kills % 2])
                    kills += 1
            for each in wanted:
                each.result()
        assert all(proxy.cut for proxy in proxies)
        calm = "http://{}:{}".format(*proxies[1].target)
        stored = {
            each["session"]: _turns(client, f"{calm}/v1/sessions/{each['session']}")
            for each in opening
        }
    assert violations(crowd.operations, stored) == []
    assert sum(map(len, stored.values())) == len(wanted) + 3
    assert len(crowd.operations) > len(wanted) * 1.2


def _turns_run(model: ServerProcess) -> bool:
    stats = httpx2.get(f"{model.url.removesuffix('/v1')}/sim/stats").json()
    return bool(stats["open_streams"])


def _turns(client: httpx2.Client, url: str) -> tuple[TurnRecord, ...]:
    """All turns of a session, oldest first, as its owner is shown them."""
    found: list[TurnRecord] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(url, params={"limit": 50} | ({"cursor": cursor} if cursor else {})).json()
        found += [
            TurnRecord(
                id=each["id"],
                number=each["number"],
                created_at=each["created_at"],
                agent=each["agent"],
                intent=each["intent"],
                messages=(UserMessage(each["messages"][0]["text"]), AssistantMessage("")),
                usage=Usage(),
            )
            for each in page["turns"]
        ]
        cursor = page["cursor"]
    assert page["version"] == len(found)
    return tuple(reversed(found))
