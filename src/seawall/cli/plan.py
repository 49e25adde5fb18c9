"""`seawall plan`: compare Lambda and EKS for a workload, by simulation."""

import argparse
import gc
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seawall.cli import plan_prices
from seawall.cli.arguments import Commands, Parser, add_json, plural, requires_extra
from seawall.cli.terminal import ProgressLine, color, exit_on_interrupt, progress_bar
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.plan.decision.answer import Answer
    from seawall.plan.decision.runs import Progress, Report
    from seawall.plan.inputs.question import Question
    from seawall.plan.inputs.question_file import QuestionFile
    from seawall.plan.inputs.workload import Workload

__all__ = ["add_parser"]

# The default workload: the reference article's crowd, and a day of a million users.
_DEFAULT = {"daily": "1200000", "spikes": ("5000@20s",), "duration": "4s..7s", "start": "1s"}
_DEFAULT_SOURCE = "default: the reference article's, with 1,200,000 requests a day"


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan",
        help="compare Lambda and EKS for your workload, by simulation",
        description="Simulate a workload on AWS Lambda (classic, SnapStart, provisioned, managed "
        "instances), EKS, ECS and other places, each in its cheapest configuration that meets the "
        "objective, and report which to choose, what it costs, where that changes and how sure it "
        "is. Without arguments: the reference article's crowd. Needs the extra 'plan'. See "
        "docs/plan.md.",
    )
    _add_workload(parser)
    _add_terms(parser)
    out = parser.add_argument_group("output")
    add_json(out, "print the whole answer as one JSON object")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report as HTML")
    out.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="check the deployment that FILE describes; exit status 1 if it misses the objective",
    )
    out.add_argument(
        "--markdown",
        action="store_true",
        help="with --check: print a comment for a change request",
    )
    out.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="with --markdown: the output of --check --json before the change, to compare with",
    )
    out.add_argument(
        "--explain",
        metavar="CHOICE",
        help="why, in numbers, step by step, for one platform, such as eks or lambda",
    )
    parser.set_defaults(run=_run)
    plan_prices.add_commands(parser.add_subparsers(title="commands", metavar="COMMAND"))


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    group.add_argument(
        "--workload",
        type=Path,
        metavar="FILE",
        help="workload as a TOML file; other options override it",
    )
    group.add_argument("--daily", metavar="N", help="requests a day, such as 1200000 or 1.2M")
    group.add_argument(
        "--spike",
        action="append",
        default=[],
        metavar="N@TIME",
        help="crowd: 5000@20s, or 5000@20s+10s to arrive within ten seconds; may be repeated",
    )
    group.add_argument(
        "--duration", metavar="TIME", help="duration of a request, such as 2s or 4s..7s"
    )
    group.add_argument("--init", metavar="TIME", help="initialisation of a process, such as 1s")
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="recorded arrivals: CSV, or an export of Prometheus, CloudWatch or a load balancer",
    )
    group.add_argument(
        "--calibration", type=Path, metavar="FILE", help="measurements of seawall lab calibrate"
    )
    group.add_argument("--model-tpm", metavar="N", help="the model's quota of tokens a minute: 2M")
    group.add_argument("--model-rpm", metavar="N", help="the model's quota of requests a minute")
    group.add_argument(
        "--max-tokens",
        metavar="N",
        help="bound of a call's output; none: the model's own (default: 4096)",
    )
    group.add_argument(
        "--measured",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="results of Lambda Power Tuning, Compute Optimizer or OpenCost, or a Cost and Usage "
        "Report, in place of assumptions; may be repeated",
    )
    group.add_argument(
        "--spikes-a-month", type=float, metavar="N", help="spikes a month (default: 4)"
    )
    group.add_argument(
        "--announced",
        action="store_true",
        help="spikes are known in advance: schedule capacity for them",
    )


def _add_terms(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("objective, in the spike")
    group.add_argument(
        "--first-token", metavar="TIME", help="highest p99 of the time to first token (default: 5s)"
    )
    group.add_argument(
        "--errors", metavar="SHARE", help="highest share of errors: 1%%, 0.01 (default: 1%%)"
    )
    group.add_argument("--latency", metavar="TIME", help="highest p99 of the whole answer, or any")
    group.add_argument("--budget", metavar="MONEY", help="highest cost a month: 500, $500, 1.5k")
    terms = parser.add_argument_group("platforms and prices")
    terms.add_argument("--region", metavar="NAME", help="us-east-1 (default) or eu-central-1")
    terms.add_argument("--prices", type=Path, metavar="FILE", help="your own prices as a TOML file")
    terms.add_argument(
        "--discount",
        action="append",
        default=[],
        metavar="WHAT=SHARE",
        help="savings plans and spot: lambda=12%%, ec2=28%%, fargate=20%%, spot=60%%; may be "
        "repeated",
    )
    terms.add_argument(
        "--platforms",
        metavar="NAMES",
        help="aws (default), all, or names separated by commas, such as eks,lambda",
    )
    terms.add_argument(
        "--account-limit",
        type=int,
        metavar="N",
        help="Lambda concurrency of the account (default: raised as needed)",
    )
    terms.add_argument("--arch", choices=["arm64", "x86_64"], help="architecture (default: arm64)")
    terms.add_argument(
        "--entry",
        choices=["function-url", "http-api", "rest-api", "alb"],
        help="entry point of a function (default: function-url)",
    )
    terms.add_argument(
        "--managed-runtime",
        choices=["async", "processes"],
        help="on managed instances: one process for many requests, or AWS's (default: async)",
    )
    terms.add_argument(
        "--egress",
        choices=["nat", "endpoints"],
        help="way of a private network to the model: NAT gateways, or interface endpoints for a "
        "model on Bedrock (default: nat)",
    )
    terms.add_argument(
        "--model", metavar="NAME", help="model by whose list prices tokens are billed"
    )
    terms.add_argument(
        "--zones", type=int, metavar="N", help="availability zones of pods and NAT (default: 2)"
    )


def _run(arguments: argparse.Namespace) -> int:
    # Short-lived, with few cycles: collecting garbage was a tenth of the time.
    gc.disable()
    try:
        return exit_on_interrupt(lambda: _plan(arguments))
    finally:
        gc.enable()


def _plan(arguments: argparse.Namespace) -> int:
    with requires_extra("plan", "plan"):  # before anything else
        import numba  # noqa: F401, PLC0415
    if arguments.check is not None:
        return _check(arguments)
    for name in ("markdown", "baseline"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name}: only with --check")
    if arguments.explain is not None:
        return _explain(arguments)
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
        sys.stdout.write(_highlighted(printable(format_answer(answer), keep="\n")))
        sys.stdout.write(_remarks(question))
        if arguments.html is not None:
            sys.stdout.write(f"report: {arguments.html}\n")
    return 0


def _remarks(question: "Question") -> str:
    """What was read of a trace, and whether prices are old, in lines of a terminal."""
    import textwrap  # noqa: PLC0415
    from datetime import UTC, datetime  # noqa: PLC0415

    from seawall.plan.decision.notes import stale_notes  # noqa: PLC0415

    remarks = stale_notes(question.prices, datetime.now(UTC).date())
    if read := question.workload.sources.get("arrivals.trace", ""):
        remarks.insert(0, f"trace: {read.removeprefix('given: ')}")
    lines = (line for each in remarks for line in textwrap.wrap(printable(each), 80))
    return "".join(f"{line}\n" for line in lines)


def _highlighted(text: str) -> str:
    """Make the row of the choice bold on a terminal."""
    return "".join(
        color(line.rstrip("\n"), "bold") + "\n" if line.startswith(">") else line
        for line in text.splitlines(keepends=True)
    )


def _write_html(answer: "Answer", path: Path) -> None:
    from seawall.plan.output.report import write_report  # noqa: PLC0415

    try:
        write_report(answer, path)
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror}") from None


def _check(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415

    from seawall.plan.decision.check import check, read_baseline  # noqa: PLC0415
    from seawall.plan.output.comment import format_comment  # noqa: PLC0415
    from seawall.plan.output.terminal import format_check  # noqa: PLC0415

    if arguments.workload is not None:
        raise ConfigError("--check: the file describes the workload; it excludes --workload")
    if arguments.html is not None:
        raise ConfigError("--check: writes no report; it excludes --html")
    if arguments.baseline is not None and not arguments.markdown:
        raise ConfigError("--baseline: only with --markdown")
    if arguments.explain is not None or (arguments.markdown and arguments.json):
        other = "--explain" if arguments.explain is not None else "--json"
        raise ConfigError(f"{other}: not with --{'check' if arguments.explain else 'markdown'}")
    before = read_baseline(arguments.baseline) if arguments.baseline is not None else None
    written = _written(arguments, arguments.check)
    written = msgspec.structs.replace(written, question=_question(arguments, written))
    show, done = _progress()
    try:
        checked = check(written, progress=show)
    finally:
        done()
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(checked).decode() + "\n")
    elif arguments.markdown:
        sys.stdout.write(printable(format_comment(checked, before), keep="\n"))
    else:
        sys.stdout.write(printable(format_check(checked), keep="\n"))
    return 0 if checked.holds else 1


def _explain(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415

    from seawall.plan.decision.explain import explain  # noqa: PLC0415
    from seawall.plan.decision.places.registry import PLACES  # noqa: PLC0415
    from seawall.plan.output.terminal import format_explanation  # noqa: PLC0415

    if arguments.html is not None:
        raise ConfigError("--explain: writes no report; it excludes --html")
    name = next((each for each in PLACES if each == arguments.explain), None)
    if name is None:
        known = ", ".join(PLACES)
        raise ConfigError(f"--explain: {arguments.explain!r} is unknown; known: {known}")
    question = _question(arguments, _written(arguments, arguments.workload))
    show, done = _progress()
    try:
        explained = explain(question, name, progress=show)
    finally:
        done()
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(explained).decode() + "\n")
    else:
        sys.stdout.write(printable(format_explanation(explained), keep="\n"))
    return 0


def _default_workload(arguments: argparse.Namespace) -> "Workload":
    """Return the article's workload, unless arrivals are given."""
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
        "model_tpm": arguments.model_tpm or "",
        "model_rpm": arguments.model_rpm or "",
        "max_tokens": arguments.max_tokens or "",
    }
    default = _default_workload(arguments)
    if path is None:
        return QuestionFile(question=Question(workload=from_flags(base=default, **flags)))
    written = read_question(path, default)
    from msgspec import structs  # noqa: PLC0415

    workload = from_flags(base=written.question.workload, **flags)
    return structs.replace(written, question=structs.replace(written.question, workload=workload))


def _question(arguments: argparse.Namespace, written: "QuestionFile") -> "Question":
    """Override the question of a file by options."""
    from msgspec import structs  # noqa: PLC0415

    from seawall.plan.inputs.calibration import calibrated, read_calibration  # noqa: PLC0415
    from seawall.plan.inputs.measured.applying import with_measured  # noqa: PLC0415
    from seawall.plan.inputs.notation import parse_money, parse_seconds, parse_share  # noqa: PLC0415
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
        endless = arguments.latency == "any"
        hard["latency_p99"] = math.inf if endless else parse_seconds(arguments.latency, "--latency")
    if arguments.errors:
        hard["error_share"] = parse_share(arguments.errors, "--errors", ambiguous=0.1)
    terms = _terms(arguments)
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
    if arguments.budget is not None:
        hard["monthly_cost"] = parse_money(arguments.budget, "--budget", prices.currency)
    given |= {f"options.{name}" for name in terms} | ({"objective"} if hard else set())
    if arguments.prices or arguments.region or discounts:
        given.add("prices")
    question = structs.replace(
        question,
        workload=workload,
        objective=structs.replace(question.objective, **hard),
        options=options,
        prices=prices,
        given=frozenset(given),
    )
    return with_measured(question, [*written.measured, *arguments.measured])


def _terms(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the platforms that are given."""
    terms: dict[str, Any] = {
        "spikes_a_month": arguments.spikes_a_month,
        "announced": arguments.announced or None,
        "account_limit": arguments.account_limit,
        "architecture": arguments.arch,
        "entry": arguments.entry,
        "managed_runtime": arguments.managed_runtime,
        "zones": arguments.zones,
        "egress": arguments.egress,
        "model": arguments.model,
    }
    if arguments.platforms:
        terms["platforms"] = tuple(each.strip() for each in arguments.platforms.split(","))
    return {name: value for name, value in terms.items() if value is not None}


def _progress() -> "tuple[Report | None, Callable[[], None]]":
    """Make a callback that shows progress on a terminal, and another that removes it."""
    if not sys.stderr.isatty():
        return None, lambda: None
    from seawall.plan.simulator.kernels import is_cached  # noqa: PLC0415 - imports numba

    line = ProgressLine()
    if not is_cached():
        line.show("compiling the simulator, once after an installation: about a minute ...")

    def show(progress: "Progress") -> None:
        text = plural(progress.simulations, "simulation")
        if progress.total:
            bar = progress_bar(progress.done, progress.total)
            text = f"{bar} {progress.done} of {progress.total} parts, {text}"
        line.show(text)

    return show, line.end
