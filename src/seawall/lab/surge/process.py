"""The driver in a process of its own, so that measuring does not disturb it.

`python -m seawall.lab.surge.process` reads a `Scenario` as JSON from standard input and writes JSON
lines: progress, then the outcomes (a thousand a line), last a `SurgeResult` without outcomes.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, SeawallError
from seawall.lab.processes import consumption, raise_file_limit, run
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Outcome, Progress, SurgeResult
from seawall.lab.surge.scenario import Scenario

__all__ = [
    "ProcessUsage",
    "UsageSample",
    "drive_in_subprocess",
    "drive_watched",
    "main",
]

_BATCH = 1_000  # outcomes a line
_LONGEST_LINE = 1 << 24


class _Outcomes(Struct, frozen=True, tag="outcomes", tag_field="kind"):
    """A batch of a result's outcomes."""

    outcomes: list[Outcome]


class _Failed(Struct, frozen=True, tag="failed", tag_field="kind"):
    """The reason why there is no result."""

    reason: str


_Message = Progress | _Outcomes | _Failed | SurgeResult
_decode = msgspec.json.Decoder(_Message).decode


async def drive_in_subprocess(
    scenario: Scenario,
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    interruptible: bool = False,
) -> SurgeResult:
    """Run a scenario in a driver process.

    Args:
        scenario: What to run.
        progress: Called five times a second.
        interruptible: Ctrl-C stops the driver, which then returns a partial result; a second
            Ctrl-C ends both processes at once. Otherwise Ctrl-C ends both.

    Raises:
        SeawallError: The driver ended without a result.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "seawall.lab.surge.process"),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LONGEST_LINE,
        start_new_session=True,  # else a terminal's Ctrl-C would reach it directly
    )
    if process.stdin is None or process.stdout is None:
        raise SeawallError("the surge driver has no pipes")
    outcomes: list[Outcome] = []
    result: SurgeResult | None = None
    if interruptible:
        _stop_by_interrupt(process)
    try:
        process.stdin.write(msgspec.json.encode(scenario))
        await process.stdin.drain()
        process.stdin.close()
        while line := await process.stdout.readline():
            message = _decode(line)
            if isinstance(message, SurgeResult):
                result = msgspec.structs.replace(message, outcomes=outcomes)
            elif isinstance(message, _Failed):
                raise SeawallError(message.reason)
            elif isinstance(message, _Outcomes):
                outcomes += message.outcomes
            else:
                progress(message)
    finally:
        if result is None and process.returncode is None:
            process.kill()
        await process.wait()
    if result is None:
        raise SeawallError("the surge driver ended without a result")
    return result


def _stop_by_interrupt(process: asyncio.subprocess.Process) -> None:
    main = asyncio.current_task()
    interrupts = count(1)

    def interrupt() -> None:
        if process.returncode is not None:
            return
        if next(interrupts) == 1:
            process.terminate()
        else:
            process.kill()
            if main is not None:
                main.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)


def main() -> int:
    """Run the scenario on standard input."""
    raise_file_limit()
    scenario = msgspec.json.decode(sys.stdin.buffer.read(), type=Scenario)

    # Not sys.stdout: with PYTHONUNBUFFERED it may write only a part of a long line.
    out = os.fdopen(sys.stdout.fileno(), "wb", closefd=False)

    def write(message: _Message) -> None:
        try:
            out.write(msgspec.json.encode(message) + b"\n")
            out.flush()
        except BrokenPipeError:  # the parent process has ended
            os._exit(1)

    async def driven() -> SurgeResult:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        return await drive(scenario, progress=write, stop=stop)

    try:
        result = run(driven())
    except (OSError, ConfigError) as error:
        write(_Failed(f"{scenario.url}: {error}"))
        return 1
    for start in range(0, len(result.outcomes), _BATCH):
        write(_Outcomes(result.outcomes[start : start + _BATCH]))
    write(msgspec.structs.replace(result, outcomes=[]))
    return 0


_SAMPLE_SECONDS = 0.1


class UsageSample(Struct, array_like=True, frozen=True):
    """A sample at `at` seconds: CPU seconds since the start, current memory."""

    at: float
    cpu_seconds: float
    resident_bytes: int


class ProcessUsage(Struct, frozen=True):
    """Resources used by processes and their children; the first sample precedes the run."""

    samples: list[UsageSample]

    @property
    def cpu_seconds(self) -> float:
        """Total processor time used."""
        return self.samples[-1].cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """Peak of resident memory."""
        return max(each.resident_bytes for each in self.samples)

    @property
    def grown_bytes(self) -> int:
        """Peak of resident memory above its value before the run."""
        return self.peak_bytes - self.samples[0].resident_bytes


async def drive_watched(
    scenario: Scenario,
    pids: Sequence[int],
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    every: float = _SAMPLE_SECONDS,
) -> tuple[SurgeResult, ProcessUsage]:
    """Run a scenario in a driver process and sample the resources of other processes meanwhile.

    Args:
        scenario: What to run.
        pids: Processes to sample, with their children.
        progress: Called five times a second.
        every: Seconds between samples.

    Raises:
        SeawallError: The driver ended without a result.
    """
    began = time.monotonic()
    before = sum(consumption(pid).cpu_seconds for pid in pids)

    def take_sample() -> UsageSample:
        now = [consumption(pid) for pid in pids]
        return UsageSample(
            round(time.monotonic() - began, 2),
            round(sum(each.cpu_seconds for each in now) - before, 4),
            sum(each.resident_bytes for each in now),
        )

    samples = [take_sample()]

    async def sample() -> None:
        while True:
            await asyncio.sleep(every)
            samples.append(take_sample())

    sampling = asyncio.create_task(sample())
    try:
        result = await drive_in_subprocess(scenario, progress)
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
    samples.append(take_sample())
    return result, ProcessUsage(samples)


if __name__ == "__main__":
    sys.exit(main())
