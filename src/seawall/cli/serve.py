"""`seawall serve`: the HTTP server."""

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from seawall.cli.arguments import Commands, Parser, add_json, integer, plural, requires_extra
from seawall.cli.terminal import color

__all__ = ["add_parser"]


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve turns over HTTP",
        description="Serve turns over HTTP until SIGTERM or Ctrl-C, then shut down gracefully.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="seawall.toml",
        metavar="CONFIG",
        help="configuration file, or module:name of an Orchestrator (default: %(default)s)",
    )
    parser.add_argument("--host", help="address to listen on (default: server.host)")
    parser.add_argument(
        "--port",
        type=integer(0, 65_535),
        metavar="N",
        help="port to listen on; 0 finds a free one (default: server.port)",
    )
    parser.add_argument(
        "--workers",
        type=integer(0, 1_024),
        metavar="N",
        help="worker processes (default: server.workers, or one for each usable processor)",
    )
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="accept requests from this machine without a credential (identity.anonymous); for "
        "trying things out, never behind a proxy",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="restart when a file beside the configuration changes; for development, with one "
        "worker unless --workers is given",
    )
    add_json(parser, "announce the URL as a JSON line on standard output")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.reload:
        return _run_with_reload(arguments)
    with requires_extra("serve", "serve"):
        import uvicorn  # noqa: F401, PLC0415

    from seawall.hosts.http.supervisor import ServerCallbacks, serve  # noqa: PLC0415
    from seawall.hosts.logs import FORMAT, LEVEL  # noqa: PLC0415

    for name in ("host", "port", "workers"):
        value = getattr(arguments, name)
        if value is not None:  # workers are separate processes and read it there
            os.environ[f"SEAWALL_SERVER__{name.upper()}"] = str(value)
    if arguments.anonymous:
        os.environ["SEAWALL_IDENTITY__ANONYMOUS"] = "true"

    os.environ[LEVEL], os.environ[FORMAT] = arguments.log_level, arguments.log_format

    def write(line: str, **figures: object) -> None:
        sys.stdout.write((json.dumps(figures) if arguments.json else line) + "\n")
        sys.stdout.flush()

    def ready(url: str, workers: int) -> None:
        write(
            f"Seawall is listening on {color(url, 'bold')} ({plural(workers, 'worker')})",
            url=url,
            workers=workers,
        )

    def stopping(in_flight: int, seconds: float) -> None:
        waits = f", draining for up to {seconds:g} s; a second signal ends it" if in_flight else ""
        with suppress(OSError):  # turns are drained whether or not the output can be written
            write(
                f"Seawall is shutting down: {plural(in_flight, 'turn')} in flight{waits}",
                stopping=True,
                in_flight=in_flight,
                seconds=seconds,
            )

    def stopped(completed: int, failed: int) -> None:
        write(
            f"Seawall has stopped: {plural(completed, 'turn')} completed, {failed:,} failed",
            stopped=True,
            completed=completed,
            failed=failed,
        )

    return serve(arguments.source, ServerCallbacks(ready, stopping, stopped))


def _run_with_reload(arguments: argparse.Namespace) -> int:
    from seawall.cli.reload import serve_with_reload  # noqa: PLC0415

    words = ["serve", arguments.source, "--workers", str(arguments.workers or 1)]
    words += [word for name in ("host", "port") if (word := _option(arguments, name))]
    words += [f"--{name}" for name in ("anonymous", "json") if getattr(arguments, name)]
    if arguments.log_level:
        words.append(f"--log-level={arguments.log_level}")
    if arguments.log_format:
        words.append(f"--log-format={arguments.log_format}")
    source = Path(arguments.source)
    return serve_with_reload(words, source.parent if source.is_file() else Path())


def _option(arguments: argparse.Namespace, name: str) -> str:
    value = getattr(arguments, name)
    return "" if value is None else f"--{name}={value}"
