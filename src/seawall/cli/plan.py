"""`seawall plan`: Lambda or EKS, for this workload, with numbers."""

import argparse
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seawall.cli.extras import requires_extra
from seawall.cli.interrupts import exit_on_interrupt
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.plan.decision.answer import Answer
    from seawall.plan.inputs.question import Question
    from seawall.plan.inputs.question_file import QuestionFile
    from seawall.plan.inputs.workload import Workload

__all__ = ["add_parser"]

# What is asked where nothing is: the reference article's crowd, and a million users' day.
_DEFAULT = {"daily": "1200000", "spikes": ("5000@20s",), "duration": "4s..7s", "start": "1s"}
_DEFAULT_SOURCE = "default: the reference article's, with 1,200,000 requests a day"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan",
        help="Lambda or EKS, for your workload, with numbers",
        description="Simulate a workload on AWS Lambda (classic, SnapStart, provisioned, managed "
        "instances) and on EKS, each in its cheapest configuration that holds the objective, and "
        "say which to choose, what it costs, where that changes and how sure it is. Without "
        "arguments: the reference article's crowd. Needs the extra 'plan'. docs/plan.md.",
    )
    _add_workload(parser)
    _add_terms(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="the whole answer as one JSON object")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report to look at")
    out.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="check what FILE says is deployed; exit status 1 if the objective does not hold",
    )
    parser.set_defaults(run=_run)


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    group.add_argument(
        "--workload", type=Path, metavar="FILE", help="a TOML file; flags change what it says"
    )
    group.add_argument("--daily", metavar="N", help="requests a day: 1200000, 1.2M")
    group.add_argument(
        "--spike",
        action="append",
        default=[],
        metavar="N@TIME",
        help="a crowd: 5000@20s, or 5000@20s+10s within ten seconds; may be repeated",
    )
    group.add_argument("--duration", metavar="TIME", help="of a request: 2s, 4s..7s")
    group.add_argument("--init", metavar="TIME", help="initialisation of a process: 1s")
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="recorded: CSV, or an export of Prometheus, CloudWatch, a load balancer",
    )
    group.add_argument(
        "--calibration", type=Path, metavar="FILE", help="measured by seawall lab calibrate"
    )
    group.add_argument("--spikes-a-month", type=float, metavar="N", help="(default: 4)")
    group.add_argument(
        "--announced", action="store_true", help="spikes are known before: capacity is scheduled"
    )


def _add_terms(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("objective, in the spike")
    group.add_argument(
        "--first-token", metavar="TIME", help="p99 of the first token at most (default: 5s)"
    )
    group.add_argument("--errors", metavar="SHARE", help="at most, such as 1%% (default: 1%%)")
    group.add_argument("--latency", metavar="TIME", help="p99 of the whole answer at most")
    group.add_argument("--budget", type=float, metavar="MONEY", help="a month, at most")
    terms = parser.add_argument_group("platforms and prices")
    terms.add_argument("--region", help="us-east-1 (default), eu-central-1")
    terms.add_argument("--prices", type=Path, metavar="FILE", help="prices of your own, TOML")
    terms.add_argument(
        "--discount",
        action="append",
        default=[],
        metavar="WHAT=SHARE",
        help="savings plans and spot: lambda=12%%, ec2=28%%, fargate=20%%, spot=60%%",
    )
    terms.add_argument(
        "--account-limit",
        type=int,
        metavar="N",
        help="Lambda concurrency of the account (default: its quota is raised as needed)",
    )
    terms.add_argument("--arch", choices=["arm64", "x86_64"], help="(default: arm64)")
    terms.add_argument(
        "--entry",
        choices=["function-url", "http-api", "rest-api", "alb"],
        help="what a function is reached by (default: function-url)",
    )
    terms.add_argument(
        "--managed-runtime",
        choices=["async", "processes"],
        help="on managed instances: one process for many requests, or AWS's (default: async)",
    )
    terms.add_argument("--zones", type=int, metavar="N", help="for pods and NAT (default: 2)")


def _run(arguments: argparse.Namespace) -> int:
    # Short-lived, and little of it is cyclic: collecting garbage was a tenth of the time.
    gc.disable()
    try:
        return exit_on_interrupt(lambda: _plan(arguments))
    finally:
        gc.enable()


def _plan(arguments: argparse.Namespace) -> int:
    with requires_extra("plan", "plan"):  # said before anything is begun
        import numba  # noqa: F401, PLC0415
    if arguments.check is not None:
        return _check(arguments)
    import msgspec  # noqa: PLC0415

    from seawall.plan.decision.advice import advise  # noqa: PLC0415
    from seawall.plan.output.terminal import format_answer  # noqa: PLC0415

    question = _question(arguments, _written(arguments, arguments.workload))
    show, done = _progress()
    try:
        answer = advise(question, progress=show)
    finally:
        done()
    if arguments.html is not None:
        _write_html(answer, arguments.html)
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    else:
        sys.stdout.write(printable(format_answer(answer), keep="\n"))
        if arguments.html is not None:
            sys.stdout.write(f"report: {arguments.html}\n")
    return 0


def _write_html(answer: "Answer", path: Path) -> None:
    from seawall.plan.output.report import write_report  # noqa: PLC0415

    try:
        write_report(answer, path)
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror}") from None


def _check(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415

    from seawall.plan.decision.check import check  # noqa: PLC0415
    from seawall.plan.output.terminal import format_check  # noqa: PLC0415

    if arguments.workload is not None:
        raise ConfigError("--check: the file describes the workload; not together with --workload")
    if arguments.html is not None:
        raise ConfigError("--check: writes no report; not together with --html")
    written = _written(arguments, arguments.check)
    written = msgspec.structs.replace(written, question=_question(arguments, written))
    show, done = _progress()
    try:
        checked = check(written, progress=show)
    finally:
        done()
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(checked).decode() + "\n")
    else:
        sys.stdout.write(printable(format_check(checked), keep="\n"))
    return 0 if checked.holds else 1


def _default_workload(arguments: argparse.Namespace) -> "Workload":
    """The article's, unless something is said of who comes."""
    from seawall.plan.inputs.workload import Workload  # noqa: PLC0415
    from seawall.plan.inputs.workload_file import from_flags  # noqa: PLC0415

    if arguments.daily or arguments.spike or arguments.trace:
        return Workload()
    found = from_flags(**_DEFAULT)  # type: ignore[arg-type]
    sources = {
        name: _DEFAULT_SOURCE if source.startswith("given") else source
        for name, source in found.sources.items()
    }
    return Workload(
        arrivals=found.arrivals, service=found.service, clients=found.clients, sources=sources
    )


def _written(arguments: argparse.Namespace, path: Path | None) -> "QuestionFile":
    from seawall.plan.inputs.question import Question  # noqa: PLC0415
    from seawall.plan.inputs.question_file import QuestionFile, read_question  # noqa: PLC0415
    from seawall.plan.inputs.workload_file import from_flags  # noqa: PLC0415

    flags: dict[str, Any] = {
        "daily": arguments.daily or "",
        "spikes": arguments.spike,
        "duration": arguments.duration or "",
        "start": arguments.init or "",
        "trace": arguments.trace,
    }
    default = _default_workload(arguments)
    if path is None:
        return QuestionFile(question=Question(workload=from_flags(base=default, **flags)))
    written = read_question(path, default)
    from msgspec import structs  # noqa: PLC0415

    workload = from_flags(base=written.question.workload, **flags)
    return structs.replace(written, question=structs.replace(written.question, workload=workload))


def _question(arguments: argparse.Namespace, written: "QuestionFile") -> "Question":
    """What the file says, changed by flags."""
    from msgspec import structs  # noqa: PLC0415

    from seawall.plan.inputs.calibration import calibrated, read_calibration  # noqa: PLC0415
    from seawall.plan.inputs.notation import parse_seconds  # noqa: PLC0415
    from seawall.plan.inputs.prices import parse_discounts  # noqa: PLC0415
    from seawall.plan.inputs.question_file import prices_from  # noqa: PLC0415

    question = written.question
    workload, given = question.workload, set(question.given)
    if arguments.calibration is not None:
        workload = calibrated(workload, read_calibration(arguments.calibration))
    hard: dict[str, Any] = {}
    if arguments.first_token:
        hard["first_token_p99"] = parse_seconds(arguments.first_token, "--first-token")
    if arguments.latency:
        hard["latency_p99"] = parse_seconds(arguments.latency, "--latency")
    if arguments.errors:
        hard["error_share"] = _share(arguments.errors, "--errors")
    if arguments.budget is not None:
        hard["monthly_cost"] = arguments.budget
    terms = {
        "spikes_a_month": arguments.spikes_a_month,
        "announced": arguments.announced or None,
        "account_limit": arguments.account_limit,
        "architecture": arguments.arch,
        "entry": arguments.entry,
        "managed_runtime": arguments.managed_runtime,
        "zones": arguments.zones,
    }
    terms = {name: value for name, value in terms.items() if value is not None}
    discounts = parse_discounts(arguments.discount)
    if "spot" in discounts:
        terms["spot"] = True
    options = structs.replace(question.options, **terms)
    prices = question.prices
    if arguments.prices is not None or arguments.region is not None:
        region = arguments.region or prices.region
        off = prices.discounts | discounts
        prices = prices_from(arguments.prices, region, off, options.architecture)
    elif discounts:
        prices = structs.replace(prices, discounts=prices.discounts | discounts)
    given |= {f"options.{name}" for name in terms} | ({"objective"} if hard else set())
    if arguments.prices or arguments.region or discounts:
        given.add("prices")
    return structs.replace(
        question,
        workload=workload,
        objective=structs.replace(question.objective, **hard),
        options=options,
        prices=prices,
        given=frozenset(given),
    )


def _share(text: str, name: str) -> float:
    try:
        return float(text.rstrip("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not a share such as 1%") from None


def _progress() -> tuple[Callable[[int], None] | None, Callable[[], None]]:
    """How many simulations there were, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None, lambda: None

    def show(runs: int) -> None:
        if runs % 10 == 0:
            sys.stderr.write(f"\r{runs} simulations")
            sys.stderr.flush()

    def done() -> None:
        sys.stderr.write("\r" + " " * 24 + "\r")
        sys.stderr.flush()

    return show, done
