"""`seawall serve`: the HTTP server."""

import argparse
import json
import os
import sys

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve turns over HTTP",
        description="Serve turns over HTTP until SIGTERM or Ctrl-C; turns in flight are finished.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default="seawall.toml",
        metavar="CONFIG",
        help="configuration file, or module:name of an Orchestrator (default: %(default)s)",
    )
    parser.add_argument("--host", help="address to listen on (default: server.host)")
    parser.add_argument("--port", type=int, help="port; 0 finds a free one (default: server.port)")
    parser.add_argument(
        "--workers",
        type=int,
        help="processes (default: server.workers, or else the processors that may be used)",
    )
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="admit requests from this machine without a credential (identity.anonymous); for "
        "trying things out, never behind a proxy",
    )
    parser.add_argument(
        "--json", action="store_true", help="announce as a JSON line on standard output"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from seawall.hosts.http.supervisor import serve  # noqa: PLC0415 - needs the extra `serve`
    from seawall.hosts.logs import FORMAT, LEVEL  # noqa: PLC0415

    for name in ("host", "port", "workers"):
        value = getattr(arguments, name)
        if value is not None:  # workers are separate processes: they read it there
            os.environ[f"SEAWALL_SERVER__{name.upper()}"] = str(value)
    if arguments.anonymous:
        os.environ["SEAWALL_IDENTITY__ANONYMOUS"] = "true"

    os.environ[LEVEL], os.environ[FORMAT] = arguments.log_level, arguments.log_format

    def announce(url: str, workers: int) -> None:
        if arguments.json:
            sys.stdout.write(json.dumps({"url": url, "workers": workers}) + "\n")
        else:
            plural = "" if workers == 1 else "s"
            sys.stdout.write(f"Seawall takes turns at {url} ({workers} worker{plural})\n")
        sys.stdout.flush()

    return serve(arguments.source, announce)
