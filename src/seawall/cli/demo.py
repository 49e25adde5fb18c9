"""`seawall demo`: one conversation to read, then a measured surge."""

import argparse
import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_json, integer, store_example
from seawall.cli.terminal import print_line, show_progress

if TYPE_CHECKING:
    from seawall.lab.demo import DemoResult

__all__ = ["add_parser"]

_COLUMNS = ("p50", "p95", "p99", "max")


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="see Seawall work: a conversation, then a surge",
        description="Start a simulated model and the server with the store example, have one "
        "conversation, then send the questions of a crowd at the same moment.",
    )
    parser.add_argument(
        "--turns",
        type=integer(1, 100_000),
        metavar="N",
        help="turns at the same moment (default: 5000, or 6 with the local model)",
    )
    parser.add_argument(
        "--model",
        choices=["simulated", "local"],
        default="simulated",
        help="simulated model, or a small real one in the server itself (default: %(default)s)",
    )
    parser.add_argument(
        "--tools",
        choices=["python", "openapi", "mcp"],
        default="python",
        help="where the store's tools run: in the server, in an HTTP service with an OpenAPI "
        "document, or in an MCP server, which needs the package mcp (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=integer(0, 2**63 - 1),
        default=0,
        metavar="N",
        help="seed of the simulated model (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the server with its console after the surge, until Ctrl-C",
    )
    add_json(parser, "print only the figures, as one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.turns is None:
        arguments.turns = 6 if arguments.model == "local" else 5_000
    return _run_local(arguments) if arguments.model == "local" else _run_simulated(arguments)


def _run_local(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415

    from seawall.lab.demo_local import run_local_demo  # noqa: PLC0415
    from seawall.lab.processes import run  # noqa: PLC0415

    def write(text: str) -> None:
        if not arguments.json:
            sys.stdout.write(text)
            sys.stdout.flush()

    result = run(
        run_local_demo(arguments.turns, write_line=lambda line: write(line + "\n"), write=write)
    )
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        firsts = ", ".join(f"{each:.1f}" for each in result.first_text)
        write(
            f"\n{result.completed} of {result.turns} turns completed in {result.seconds:.1f} s, "
            f"{result.tokens_a_second:.0f} tokens a second\nfirst text after {firsts} s\n"
        )
    return 0 if result.completed == result.turns else 1


def _run_simulated(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.lab.demo import Demo, run_demo  # noqa: PLC0415
    from seawall.lab.processes import raise_file_limit, run  # noqa: PLC0415

    example = store_example().parent
    raise_file_limit()
    if not arguments.json:
        print_line("starting the simulated model and the server ...")

    def write(text: str) -> None:
        if not arguments.json:
            sys.stdout.write(text)
            sys.stdout.flush()

    async def keep(figures: "DemoResult") -> None:
        write(_table(figures) + "\nThe server goes on; Ctrl-C ends it.\n")
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()

    result = run(
        run_demo(
            Demo(
                example=example,
                turns=arguments.turns,
                seed=arguments.seed,
                tools=arguments.tools,
                write_line=lambda line: write(line + "\n"),
                write=write,
                progress=show_progress(),
                keep=keep if arguments.keep else None,
            )
        )
    )
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    elif not arguments.keep:
        write(_table(result))
    return 0 if result.completed == result.durable == result.turns else 1


def _table(result: "DemoResult") -> str:
    rows = [
        ("first text", result.first_text),
        ("  the model's own", result.model_first_text),
        ("  added", result.added_first_text),
        ("whole turn", result.total),
        ("  the model's own", result.model_total),
    ]
    lines = [
        "",
        (
            f"{result.completed} of {result.turns} turns completed, {result.failed} failed, "
            f"{result.durable} durable in the database, in {result.seconds:.1f} s"
        ),
        "",
        f"{'milliseconds':20}" + "".join(f"{name:>9}" for name in _COLUMNS),
    ]
    for name, values in rows:
        cells = [values[column] for column in _COLUMNS]
        lines.append(
            f"{name:20}" + "".join(f"{'-' if cell is None else round(cell):>9}" for cell in cells)
        )
    lines += [
        "",
        f"server CPU a turn              {result.server_cpu_ms_a_turn:.2f} ms",
        f"server memory a turn in flight {result.server_kb_a_turn:.1f} KB",
        f"model's CPU a turn             {result.model_cpu_ms_a_turn:.2f} ms",
        f"driver CPU a turn              {result.driver_cpu_ms_a_turn:.2f} ms",
        f"driver CPU                     {result.driver_cpu_share:.0%} of a processor",
    ]
    lines += [f"error: {count} x {error}" for error, count in result.errors.items()]
    return "\n".join(lines) + "\n"
