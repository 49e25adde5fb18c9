"""The surge driver: a crowd that arrives at one moment, each with a streamed turn of its own.

Runs as a process of its own: `python -m seawall.lab.driver`, with a `Surge` as JSON on standard
input; writes progress and at the end a `SurgeResult` as JSON lines to standard output. Open
loop: everybody's clock starts at the moment of the surge, however long the driver or the server
takes to get to them.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
from msgspec import Struct

from seawall.lab.loop import raise_file_limit, run
from seawall.lab.sim_reply import ReplyPlan, SimTimes, plan_reply
from seawall.lab.statistics import Percentiles, percentiles
from seawall.lab.visit import Api, Outcome, Visit
from seawall.transport.endpoint import Endpoint, Origin

__all__ = ["Progress", "Surge", "SurgeResult", "drive", "request_bytes"]

_CONNECTING = 512  # connections being made at once; the rest of the crowd stands in line
_TICK_SECONDS = 0.2
_SATURATED = 0.9


class Surge(Struct, frozen=True, kw_only=True):
    """A surge to drive.

    url: of the server's root. tokens: one a customer, or none for anonymous; as many turns as
    texts. seed, times: those of the simulated model, from which the right answers follow.
    seconds: after which whoever still waits has failed.
    """

    url: str
    texts: list[str]
    tokens: list[str] = []
    api: Api = "turns"
    seed: int = 0
    times: SimTimes = SimTimes()
    seconds: float = 60.0


class Progress(Struct, frozen=True, tag="progress", tag_field="kind"):
    """How far the surge is."""

    seconds: float
    streaming: int
    completed: int
    failed: int


class SurgeResult(Struct, frozen=True, tag="result", tag_field="kind", kw_only=True):
    """What came of it; times in milliseconds.

    model_first_text, model_total: the simulated model's own plan for the same turns.
    added_first_text: per turn, what the server added to it.
    driver_cpu_share: of one processor; `saturated` when so near 1 that the driver itself may
    have been late.
    """

    turns: int
    completed: int
    failed: int
    errors: dict[str, int]
    first_text: Percentiles
    total: Percentiles
    model_first_text: Percentiles
    model_total: Percentiles
    added_first_text: Percentiles
    seconds: float
    driver_cpu_seconds: float
    driver_cpu_share: float
    saturated: bool
    outcomes: list[Outcome]


async def drive(surge: Surge, progress: Callable[[Progress], None]) -> SurgeResult:
    """Drive a surge to its end."""
    loop = asyncio.get_running_loop()
    endpoint = Endpoint.parse(surge.url + _PATHS[surge.api])
    plans = [plan_reply(surge.seed, text, surge.times) for text in surge.texts]
    requests = [
        request_bytes(endpoint, surge.api, text, surge.tokens[index] if surge.tokens else "")
        for index, text in enumerate(surge.texts)
    ]
    done: list[Visit] = []
    everybody_done = asyncio.Event()

    def report(visit: Visit) -> None:
        done.append(visit)
        if len(done) == len(plans):
            everybody_done.set()

    cpu = time.process_time()
    began = loop.time()
    visits = [
        Visit(request, api=surge.api, arrived=began, expected=plan.text, report=report)
        for request, plan in zip(requests, plans, strict=True)
    ]
    line = iter(visits)

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            progress(_progress(visits, done, loop.time() - began))

    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        connecting = [
            group.create_task(_connect(endpoint.origin, line)) for _ in range(_CONNECTING)
        ]
        try:
            async with asyncio.timeout(surge.seconds):
                await everybody_done.wait()
        except TimeoutError:
            for visit in visits:
                visit.fail("no answer in time")
        for task in (ticking, *connecting):
            task.cancel()
    seconds = loop.time() - began
    progress(_progress(visits, done, seconds))
    return _result(visits, plans, seconds, time.process_time() - cpu)


async def _connect(origin: Origin, line: Iterator[Visit]) -> None:
    """Open the connections of the visits in line; several of these share one line."""
    loop = asyncio.get_running_loop()
    for visit in line:
        try:
            await loop.create_connection(partial(_itself, visit), origin.host, origin.port)
        except OSError as error:
            visit.fail(f"cannot connect: {error.strerror or error}")


def _itself(visit: Visit) -> Visit:
    return visit


def _result(
    visits: Sequence[Visit], plans: Sequence[ReplyPlan], seconds: float, spent: float
) -> SurgeResult:
    outcomes = [visit.outcome for visit in visits]
    served = [
        (outcome, plan)
        for outcome, plan in zip(outcomes, plans, strict=True)
        if not outcome.error and outcome.first_text is not None
    ]
    return SurgeResult(
        turns=len(outcomes),
        completed=len(served),
        failed=len(outcomes) - len(served),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
        first_text=percentiles([outcome.first_text or 0.0 for outcome, _ in served]),
        total=percentiles([outcome.total for outcome, _ in served]),
        model_first_text=percentiles([plan.first_token for _, plan in served]),
        model_total=percentiles([plan.duration for _, plan in served]),
        added_first_text=percentiles(
            [(outcome.first_text or 0.0) - plan.first_token for outcome, plan in served]
        ),
        seconds=round(seconds, 3),
        driver_cpu_seconds=round(spent, 3),
        driver_cpu_share=round(spent / seconds, 3),
        saturated=spent / seconds > _SATURATED,
        outcomes=outcomes,
    )


_PATHS: dict[Api, str] = {"turns": "/v1/turns", "chat": "/v1/chat/completions"}


def _progress(visits: Sequence[Visit], done: Sequence[Visit], seconds: float) -> Progress:
    failed = sum(bool(visit.outcome.error) for visit in done)
    streaming = sum(visit.outcome.first_text is not None for visit in visits) - len(done) + failed
    return Progress(round(seconds, 2), max(0, streaming), len(done) - failed, failed)


def request_bytes(endpoint: Endpoint, api: Api, text: str, token: str) -> bytes:
    """A streamed turn as it goes over the wire."""
    body: dict[str, object] = {"text": text}
    if api == "chat":
        messages = [{"role": "user", "content": text}]
        body = {"model": "auto", "messages": messages, "stream": True}
    data = msgspec.json.encode(body)
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {endpoint.target.decode()} HTTP/1.1\r\nhost: {endpoint.authority.decode()}\r\n"
        f"content-type: application/json\r\naccept: text/event-stream\r\n{authorization}"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def main() -> None:
    """Drive the surge that stands on standard input."""
    raise_file_limit()
    surge = msgspec.json.decode(sys.stdin.buffer.read(), type=Surge)

    def write(message: Progress | SurgeResult) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()

    write(run(drive(surge, write)))


if __name__ == "__main__":
    main()
