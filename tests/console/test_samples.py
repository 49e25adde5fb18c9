"""Samples of workers, asked over sockets; one sampler for all viewers; and what the page makes of
them, by another implementation of quantiles."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from seawall import Orchestrator
from seawall.config import parse_settings
from seawall.console.feed import NowFeed, Samples
from seawall.console.now import Sample, bucket
from seawall.console.peers import Peers, Question
from seawall.console.service import open_service
from seawall.models.scripted import ScriptedModel
from tests.console.app import CONFIGURATION, look_up
from tests.parts import require
from tests.parts.system import missing_node

TIMELINE = Path("src/seawall/console/assets/timeline.js").resolve()


def sample(at: int, **changes: object) -> Sample:
    fields: dict[str, object] = {
        "at": at, "in_flight": 1, "limit": 10, "queued": 0, "begun": 2, "completed": 1, "failed": 0,
        "refused": 0, "first_text": {}, "cpu": 0.5, "memory": 1, "lag": 0.0,
    }  # fmt: skip
    return msgspec.convert(fields | changes, Sample)


async def no_budgets() -> list[msgspec.Struct]:
    return []


async def test_workers_answer_each_other_and_one_that_is_gone_is_left_out(tmp_path: Path) -> None:
    def worker(index: int) -> Peers:
        return Peers(index, tmp_path, lambda _: Samples([sample(100 + index)]))

    workers = [worker(index) for index in range(3)]
    for each in workers:
        await each.open()
    (tmp_path / "console-7.sock").touch()  # of a worker that was killed
    try:
        for each in workers:
            answers = await each.ask(Question(after=0), Samples)
            assert {n: a.samples[0].at for n, a in answers.items()} == {0: 100, 1: 101, 2: 102}
        await workers[2].close()
        assert set(await workers[0].ask(Question(after=0), Samples)) == {0, 1}
    finally:
        for each in workers:
            await each.close()


async def test_hostile_questions_are_not_answered(tmp_path: Path) -> None:
    peers = Peers(0, tmp_path, lambda _: Samples([]))
    await peers.open()
    try:
        for question in (b"x\n", b"{}" * 100_000 + b"\n", b'{"after": "x"}\n', b"\n"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "console-0.sock")
            writer.write(question)
            assert await reader.read() == b"", question[:20]
            writer.close()
    finally:
        await peers.close()


async def test_viewers_share_one_sampler_and_it_ends_with_the_last() -> None:
    asked = 0

    def answer(_: Question) -> Samples:
        nonlocal asked
        asked += 1
        return Samples([sample(int(time.time()))])

    feed = NowFeed(Peers(0, None, answer), viewers=8, sample=lambda: None, read_budgets=no_budgets)

    async def watch() -> list[bytes]:
        frames: list[bytes] = []
        with feed.viewer():
            async for frame in feed.watch():
                frames.append(frame)
                if len(frames) == 3:
                    break
        return frames

    everyone = await asyncio.gather(*(watch() for _ in range(8)))
    assert asked <= 8 + 4, "history for each, and one question a second"
    for frames in everyone:
        assert frames[0].startswith(b"event: history\n")
        assert all(each.startswith(b"event: second\n") for each in frames[1:])
    await asyncio.sleep(0.05)
    before = asked
    await asyncio.sleep(1.2)
    assert asked == before, "nobody watches"


def in_node(script: str) -> object:
    """What a script prints as JSON, with everything of the timeline imported."""
    require(missing_node())
    program = f'import * as t from "{TIMELINE.as_uri()}";\nconsole.log(JSON.stringify({script}));'
    done = subprocess.run(
        [shutil.which("node") or "", "--input-type=module"],
        input=program,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: object = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_those_of_numpy_within_a_bucket(seed: int) -> None:
    random = np.random.default_rng(seed)
    seconds = random.lognormal(-1, 1.2, 3_000)
    counts: dict[int, int] = {}
    for each in seconds:
        counts[bucket(each)] = counts.get(bucket(each), 0) + 1
    histogram = json.dumps(list(counts.items()))
    found = in_node(f"t.percentiles([new Map({histogram})], [0.5, 0.95, 0.99])")
    expected = np.quantile(seconds * 1e3, [0.5, 0.95, 0.99])
    assert found == pytest.approx(expected, rel=0.06)


def test_the_page_adds_workers_up_and_carries_a_late_one() -> None:
    samples = {
        "0": [sample(at, in_flight=3, first_text={10: 1}) for at in range(100, 110)],
        "1": [sample(at, in_flight=4) for at in range(100, 107)],
    }
    encoded = msgspec.json.encode(samples).decode()
    found = in_node(
        "(() => { const line = new t.Timeline(); "
        f"line.add({encoded}); line.add({encoded}); return line.columns(); }})()"
    )
    assert isinstance(found, dict)
    assert found["at"] == list(range(100, 110))
    assert found["in_flight"] == [7] * 10, "the late worker is as it was seen last"
    assert found["begun"] == [4] * 7 + [2] * 3, "but nothing is counted twice"
    assert found["lagBy"] == [[0] * 10, [0] * 10]


def test_what_is_kept_of_a_second_changes_with_samples_that_come_late() -> None:
    early = {"0": [sample(at, first_text={at % 7: 2}) for at in range(100, 130)]}
    late = {
        "0": [sample(130, first_text={3: 9})],
        "1": [sample(at, in_flight=4, first_text={at % 5: 1}) for at in range(118, 124)],
    }
    later = {"1": [sample(at, first_text={60: 40}) for at in range(124, 131)]}
    added = [msgspec.json.encode(each).decode() for each in (early, late, later)]

    def columns(between: str) -> object:
        steps = between.join(f"line.add({each});" for each in added)
        return in_node(
            f"(() => {{ const line = new t.Timeline(); {steps} return line.columns(); }})()"
        )

    assert columns(between="line.columns();") == columns(between="")


async def test_now_goes_on_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    clock, ahead = time.time, 600.0
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    environment = {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_CONSOLE__ENABLED": "true",
        "SEAWALL_CONSOLE__LOOK": "['watch']",
    }
    orchestrator = Orchestrator(parse_settings(CONFIGURATION, environment=environment))
    orchestrator.model("default", ScriptedModel(lambda _: "x"))
    orchestrator.tool(look_up)
    async with orchestrator, asyncio.timeout(30):
        workers = [open_service(orchestrator, index) for index in range(2)]
        for each in workers:
            await each.open()
        names: list[bytes] = []
        newest: list[dict[str, int]] = []  # seconds in a frame, by worker
        with workers[0].feed.viewer():
            async for frames in workers[0].feed.watch():
                for name, data in re.findall(rb"event: (\w+)\ndata: (.*)\n\n", frames):
                    samples = json.loads(data)
                    names.append(name)
                    newest.append({n: each[-1]["at"] for n, each in samples.items() if each})
                if len(names) == 3:
                    ahead = 0.0
                elif len(names) == 7:
                    break
        opened_later = await anext(workers[1].feed.watch())
        for each in workers:
            await each.close()
    assert names[:3] == [b"history", b"second", b"second"]
    assert names[3:].count(b"history") == 1, "the page begins anew, once"
    anew = names.index(b"history", 3)
    assert anew <= 4
    for seconds in newest[anew:]:
        assert set(seconds) == {"0", "1"}, "both workers go on"
        assert max(seconds.values()) <= clock()
    for second in re.findall(rb'"at":(\d+)', opened_later):
        assert int(second) <= clock()


async def test_a_worker_that_is_late_does_not_delay_the_others(tmp_path: Path) -> None:
    asked = asyncio.Event()
    released = asyncio.Event()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await released.wait()
        writer.close()

    late = await asyncio.start_unix_server(never, tmp_path / "console-1.sock")
    peers = Peers(0, tmp_path, lambda _: Samples([sample(int(time.time()))]))
    feed = NowFeed(peers, viewers=1, sample=lambda: None, read_budgets=no_budgets)
    try:
        with feed.viewer():
            async for frame in feed.watch():
                if asked.is_set() and frame.startswith(b"event: second\n"):
                    assert set(json.loads(frame.split(b"data: ")[1].split(b"\n")[0])) == {"0"}
                    break
    finally:
        released.set()
        late.close()
        await feed.close()
