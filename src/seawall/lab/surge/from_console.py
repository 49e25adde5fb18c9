"""The driver of a surge that is started from the console, as a process of its own.

`python -m seawall.lab.surge.from_console` reads a `SurgeOrder` as a line of JSON, and writes JSON
lines: progress, last the figures, once the report is written. SIGTERM stops the surge, which is
then reported as far as it came; the end of standard input ends the process at once.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import structs

from seawall.console.surge import SurgeFigures, SurgeOrder, SurgeProgress
from seawall.errors import ConfigError
from seawall.lab.processes import raise_file_limit, run
from seawall.lab.statistics import Percentiles
from seawall.lab.surge.driver import drive
from seawall.lab.surge.outcome import Progress, SurgeResult
from seawall.lab.surge.report import as_html, headline
from seawall.lab.surge.scenario import Crowd, Instant, Open, Replay, Scenario, Shape, Simulated

__all__ = ["main"]

_READ_BACK = 500
_MAX_REPORTS = 100  # that are kept of those that the console had made
_REPORTS = "console-surge-*.html"
_ERRORS = 20
_MAX_ERROR_CHARACTERS = 300


def main() -> int:
    """Run the order on standard input."""
    raise_file_limit()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=SurgeOrder)
    try:
        scenario = _scenario(order)
        result = run(_driven(scenario))
    except (OSError, ConfigError) as error:
        sys.stderr.write(f"surge from the console: {error}\n")
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to be stopped
    figures = _figures(result)
    try:
        _write_report(Path(order.report), as_html(result, scenario))
    except OSError as error:
        sys.stderr.write(f"surge from the console: its report cannot be written: {error}\n")
        figures = structs.replace(figures, reported=False)
    _say(figures)
    return 0


async def _driven(scenario: Scenario) -> SurgeResult:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orphaned = asyncio.create_task(_end_with(reader))
    try:
        return await drive(scenario, progress=_show, stop=stop, live=True)
    finally:
        orphaned.cancel()


async def _end_with(standard_input: asyncio.StreamReader) -> None:
    await standard_input.read()
    os._exit(1)  # the server has ended


def _scenario(order: SurgeOrder) -> Scenario:
    tokens = Path(order.token_file).read_text("ascii").split() if order.token_file else []
    shape: Shape = Instant(order.people)
    if order.seconds:
        shape = Replay([order.seconds * each / order.people for each in range(order.people)])
    return Scenario(
        url=order.url,
        load=Open([Crowd(shapes=[shape], tokens=tokens)]),
        simulated=None if order.simulated is None else Simulated(order.simulated),
        patience=order.patience,
        read_back=_READ_BACK,
    )


def _show(progress: Progress) -> None:
    first = progress.first_text or Percentiles(None, None, None, None)
    _say(
        SurgeProgress(
            seconds=progress.seconds,
            sent=progress.sent,
            streaming=progress.streaming,
            completed=progress.completed,
            failed=progress.failed,
            refused=progress.refused,
            p50=first.p50,
            p95=first.p95,
            p99=first.p99,
        )
    )


def _say(message: SurgeProgress | SurgeFigures) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the server has ended
        os._exit(1)


def _figures(result: SurgeResult) -> SurgeFigures:
    errors = list(result.errors.items())[:_ERRORS]
    return SurgeFigures(
        headline=headline(result),
        good=result.good,
        interrupted=result.interrupted is not None,
        warnings=result.driver.saturated,
        errors={error[:_MAX_ERROR_CHARACTERS]: turns for error, turns in errors},
        p50=result.first_text.p50,
        p95=result.first_text.p95,
        p99=result.first_text.p99,
    )


def _write_report(path: Path, text: str) -> None:
    """Write a report as a whole, and remove the oldest of those that the console had made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    made = sorted(path.parent.glob(_REPORTS))  # their names begin with the time
    for old in made[:-_MAX_REPORTS]:
        with suppress(OSError):
            old.unlink()


if __name__ == "__main__":
    sys.exit(main())
