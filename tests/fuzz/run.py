"""Coverage-guided fuzzing of all targets for a given time; `make fuzz` runs it for an hour.

Each target runs in a process of its own, in turns, so that a crash or a leak of one leaves the
others alone. The corpus is kept in `.fuzz/corpus` and reused. An input that
violates an invariant is written to `.fuzz/found/TARGET/`; put it into `SEEDS` of its target with
the repair, and the suite replays it from then on.
"""

import argparse
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import targets

_FOLDER = Path(__file__).parents[2] / ".fuzz"
_MOST_BYTES = 65_536
_MEMORY_MIB = 1_024
_SLICE_SECONDS = 300  # a target's process; a new one starts with a fresh heap
_INPUT_SECONDS = 10  # an input that takes longer is a finding
_FUZZ = """
import sys
import atheris
with atheris.instrument_imports(include=["seawall"], enable_loader_override=False):
    import importlib
    target = importlib.import_module("tests.fuzz.targets." + sys.argv.pop(1))
atheris.Setup(sys.argv, target.one_input)
atheris.Fuzz()
"""


def names() -> list[str]:
    """The targets' names."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def fuzz(name: str, seconds: float) -> dict[str, object]:
    """Fuzz one target.

    Args:
        name: The target's module.
        seconds: How long, at most.

    Returns:
        The figures: executions, inputs kept in the corpus, findings, seconds.
    """
    corpus, found = _FOLDER / "corpus" / name, _FOLDER / "found" / name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    _write_seeds(name, corpus)
    before = set(found.iterdir())
    began = time.monotonic()
    runs = 0
    end = began + seconds
    status = 0
    while (left := end - time.monotonic()) > 1 and set(found.iterdir()) == before and not status:
        log = _FOLDER / f"{name}.log"
        with log.open("wb") as output:
            status = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    _FUZZ,
                    name,
                    str(corpus),
                    f"-artifact_prefix={found}/",
                    f"-max_total_time={int(min(left, _SLICE_SECONDS)) or 1}",
                    f"-max_len={_MOST_BYTES}",
                    f"-rss_limit_mb={_MEMORY_MIB}",
                    f"-timeout={_INPUT_SECONDS}",
                    "-print_final_stats=1",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=_FOLDER.parent,
                env=os.environ | {"PYTHONPATH": str(_FOLDER.parent)},
                check=False,
            ).returncode
        runs += _executions(log.read_text(errors="replace"))
    findings = sorted(str(each) for each in set(found.iterdir()) - before)
    if status and not findings:
        findings = [f"the process ended with {status}: {_FOLDER / name}.log"]
    return {
        "target": name,
        "executions": runs,
        "corpus": len(list(corpus.iterdir())),
        "found": findings,
        "seconds": round(time.monotonic() - began, 1),
    }


def _write_seeds(name: str, corpus: Path) -> None:
    # In a process of its own: the module must not be imported before it is instrumented.
    script = (
        "import importlib, pathlib, sys\n"
        "seeds = importlib.import_module('tests.fuzz.targets.' + sys.argv[1]).SEEDS\n"
        "for number, seed in enumerate(seeds):\n"
        "    pathlib.Path(sys.argv[2], f'seed-{number}').write_bytes(seed)\n"
    )
    command = [sys.executable, "-c", script, name, str(corpus)]
    subprocess.run(command, check=True, cwd=_FOLDER.parent)


def _executions(log: str) -> int:
    counts = [line.split()[-1] for line in log.splitlines() if "number_of_executed_units" in line]
    return int(counts[-1]) if counts else 0


def main() -> int:
    """Fuzz the targets that are named, or all; the exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names())}")
    parser.add_argument(
        "--seconds", type=float, default=3_600, help="in all (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    given = parser.parse_args()
    wanted = given.targets or names()
    if unknown := sorted(set(wanted) - set(names())):
        parser.error(f"unknown target {', '.join(unknown)}; there are {', '.join(names())}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: it is there for Linux on x86-64, Python to 3.13")
    jobs = max(1, min(given.jobs, len(wanted)))
    each = given.seconds * jobs / len(wanted)
    print(f"{len(wanted)} targets, {jobs} at a time, {each:.0f} s each", flush=True)
    results = []
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda name: fuzz(name, each), wanted):
            results.append(result)
            print(
                f"{result['target']:<20} {result['executions']:>12,} inputs"
                f" {result['corpus']:>7} kept  {result['found'] or 'nothing found'}",
                flush=True,
            )
    print(json.dumps(results))
    return int(any(result["found"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
