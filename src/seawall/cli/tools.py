"""`seawall tools`: list, call, lock and check the tools of a configuration."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seawall.cli.arguments import (
    Commands,
    Parser,
    add_group,
    add_json,
    name,
    plural,
    requires_extra,
)
from seawall.cli.stored import print_json
from seawall.cli.terminal import color
from seawall.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from seawall.cli.checks import Check
    from seawall.composition import OpenTools
    from seawall.config import Settings

__all__ = ["add_parser"]

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "tools",
        "list, call, lock and check the tools of a configuration",
        "Tools are Python functions, operations of OpenAPI documents, and tools of MCP servers.",
    )
    listing = _add(commands, "list", _list, "list all tools, with their source and what they do")
    add_json(listing)
    call = _add(
        commands,
        "call",
        _call,
        "call a tool",
        "Call a tool as an agent would, with the same checks, limits and credentials, and print "
        "what a model would read. The exit status is 1 if that is an error.",
    )
    call.add_argument("tool", metavar="TOOL", help="name of the tool")
    call.add_argument(
        "arguments",
        nargs="?",
        default="{}",
        metavar="JSON",
        help='its arguments, such as \'{"order": "A-7"}\'; "-" reads them from standard input',
    )
    call.add_argument("--yes", action="store_true", help="call it even if it changes something")
    call.add_argument(
        "--tenant", type=name, default="local", help="tenant of the caller (default: %(default)s)"
    )
    call.add_argument(
        "--subject", type=name, default="local", help="subject of the caller (default: %(default)s)"
    )
    call.add_argument(
        "--token-env",
        metavar="NAME",
        default="",
        help="environment variable with the caller's token, for tools that need it",
    )
    call.add_argument("--key", default="", help="idempotency key of the call (default: a new one)")
    add_json(call)
    lock = _add(
        commands,
        "lock",
        _lock,
        "record the definitions of OpenAPI and MCP tools in tools.lock",
        "Write tools.lock beside the configuration, with a digest of each tool of OpenAPI "
        "documents and MCP servers. A tool whose definition differs later is refused; see pin in "
        "the configuration.",
    )
    lock.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if it would change"
    )
    login = _add(
        commands,
        "login",
        _login,
        "sign in to an MCP server with a browser",
        'Sign in to an MCP server whose auth has grant = "login": open its authorization server in '
        "a browser, and keep what is issued in login_file, readable for this user only.",
    )
    login.add_argument("source", metavar="NAME", help="the source: NAME of [tools.NAME]")
    login.add_argument("--tenant", type=name, help="with the credentials of a tenant")
    login.add_argument("--no-browser", action="store_true", help="only print the address")
    doctor = _add(
        commands,
        "doctor",
        _doctor,
        "check that every source is reached and every tool is usable",
        "Check each OpenAPI document and MCP server: reached, listed, schemas, credentials, lock "
        "file. No tool is called. The exit status is 1 if a check failed.",
    )
    add_json(doctor, "print the findings as a JSON array")


def _add(
    commands: "Commands[Parser]",
    command: str,
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
    summary: str,
    description: str = "",
) -> Parser:
    parser = commands.add_parser(
        command, help=summary, description=description or f"{summary[0].upper()}{summary[1:]}."
    )
    parser.add_argument(
        "config",
        nargs="?" if command != "call" else None,
        type=Path,
        default=Path("seawall.toml"),
        metavar="CONFIG",
        help="configuration file" + (" (default: %(default)s)" if command != "call" else ""),
    )
    parser.set_defaults(run=lambda arguments: asyncio.run(_located(run, arguments)))
    return parser


async def _located(
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], arguments: argparse.Namespace
) -> int:
    """Run a command; errors of a key of the configuration name its file and line."""
    from seawall.config import located  # noqa: PLC0415 - only what this command needs

    try:
        return await run(arguments)
    except ConfigError as error:
        raise located(error, arguments.config) from error


def _settings(arguments: argparse.Namespace) -> "Settings":
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs

    return load_settings(arguments.config)


async def _list(arguments: argparse.Namespace) -> int:
    from seawall.composition import open_tools  # noqa: PLC0415
    from seawall.printable import printable  # noqa: PLC0415

    async with open_tools(_settings(arguments)) as opened:
        unavailable = sorted(opened.catalog.unavailable) if opened.catalog is not None else []
        if arguments.json:
            print_json({"tools": list(_entries(opened)), "unavailable": unavailable})
            return 1 if unavailable else 0
        width = max(map(len, opened.tools), default=0)
        for source in sorted(set(opened.sources.values())):
            print(color(source, "bold"))
            for each in _entries(opened):
                if each["source"] == source:
                    said = printable(str(each["description"]).partition("\n")[0])[:100]
                    print(f"  {each['name']:<{width}}  {each['kind']:<6}  {said}".rstrip())
        for source in unavailable:
            print(color(source, "bold"), color("cannot be listed now", "red"), sep="\n  ")
    return 1 if unavailable else 0


def _entries(opened: "OpenTools") -> Iterator[dict[str, object]]:
    for tool_name, tool in sorted(opened.tools.items()):
        yield {
            "name": tool_name,
            "source": opened.sources[tool_name],
            "kind": "effect" if tool.mutating else "read",
            "description": tool.spec.description,
            "schema": tool.spec.parameters,
        }


async def _call(arguments: argparse.Namespace) -> int:
    import os  # noqa: PLC0415 - only what this command needs
    import uuid  # noqa: PLC0415

    from seawall.composition import open_tools  # noqa: PLC0415
    from seawall.printable import printable  # noqa: PLC0415
    from seawall.tools.port import ToolContext  # noqa: PLC0415
    from seawall.turn import Principal  # noqa: PLC0415

    if not (arguments.key.isascii() and arguments.key.isprintable()):
        raise ConfigError("--key must be printable ASCII")
    if not arguments.config.exists():
        raise ConfigError(
            f"{arguments.config}: there is no such file; the configuration comes before the tool: "
            "seawall tools call seawall.toml TOOL"
        )
    token = os.environ.get(arguments.token_env, "")
    if arguments.token_env and not token:
        raise ConfigError(f"--token-env: the variable {arguments.token_env} is not set")
    text = sys.stdin.read() if arguments.arguments == "-" else arguments.arguments
    async with open_tools(_settings(arguments)) as opened:
        tool = opened.tools.get(arguments.tool)
        if tool is None:
            meant = did_you_mean(arguments.tool, opened.tools)
            known = ", ".join(sorted(opened.tools)) or "none"
            raise ConfigError(f"there is no tool {arguments.tool!r}{meant}; known: {known}")
        if tool.mutating and not arguments.yes:
            raise ConfigError(f"{tool.name} changes something; call it with --yes")
        outcome = await tool.call(
            text,
            ToolContext(
                principal=Principal(arguments.tenant, arguments.subject),
                session="command-line",
                turn="command-line",
                agent="command-line",
                call="command-line",
                idempotency_key=arguments.key or uuid.uuid4().hex,
                deadline=asyncio.get_running_loop().time() + _CALL_SECONDS,
                state={},
                caller_token=token,
            ),
        )
    if arguments.json:
        print_json(
            {"content": outcome.content, "failed": outcome.failed, "unknown": outcome.unknown}
        )
    else:
        print(printable(outcome.content, keep="\n\t"))
        if outcome.unknown:
            print(color("The outcome is not known.", "yellow", sys.stderr), file=sys.stderr)
    return 1 if outcome.failed else 0


_CALL_SECONDS = 60.0


async def _lock(arguments: argparse.Namespace) -> int:
    with requires_extra("seawall tools lock", "tools"):
        from seawall.tools.pins import LOCK_FILE, read_pins, write_pins  # noqa: PLC0415
    from seawall.printable import printable  # noqa: PLC0415

    settings = _settings(arguments)
    path = Path(settings.folder, LOCK_FILE)
    found = await _digests(settings)
    before = read_pins(path)
    kept = before.sources if before is not None else {}
    changes = list(_changes(kept, found))
    for each in changes:
        print(printable(each))
    if arguments.check:
        return 1 if changes or before is None else 0
    write_pins(path, found)
    count = sum(map(len, found.values()))
    print(f"{path}: {plural(count, 'tool')} of {plural(len(found), 'source')}")
    return 0


async def _digests(settings: "Settings") -> dict[str, dict[str, str]]:
    """Digests of all tools of OpenAPI documents and MCP servers.

    Raises:
        ConfigError: A source cannot be listed.
    """
    import os  # noqa: PLC0415 - only what this command needs

    with requires_extra("seawall tools lock", "tools"):
        from seawall.tools.pins import digest  # noqa: PLC0415
        from seawall.tools.sources import open_catalog  # noqa: PLC0415
        from seawall.tools.upstream import UpstreamFault  # noqa: PLC0415

    if not settings.sources:
        raise ConfigError("no OpenAPI document or MCP server is configured: nothing to lock")
    catalog = open_catalog(settings.sources, folder=settings.folder, environment=os.environ)
    found: dict[str, dict[str, str]] = {}
    loop = asyncio.get_running_loop()
    try:
        for source_name, each in catalog.sources.items():
            print(f"listing {source_name} ...", file=sys.stderr)
            deadline = loop.time() + each.settings.limits.list_seconds
            try:
                async with asyncio.timeout_at(deadline):
                    listed = await each.source.list(deadline=deadline)
            except (UpstreamFault, TimeoutError) as error:
                raise ConfigError(f"tools.{source_name}: cannot be listed: {error}") from error
            found[source_name] = {tool.name: digest(tool) for tool in listed}
    finally:
        await catalog.close()
    return found


def _changes(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> Iterator[str]:
    """A line for each tool that is new, has changed or is gone."""
    for source in sorted(before.keys() | now.keys()):
        old, new = before.get(source, {}), now.get(source, {})
        for tool in sorted(old.keys() | new.keys()):
            if tool not in old:
                yield f"+ {source} {tool}"
            elif tool not in new:
                yield f"- {source} {tool}"
            elif old[tool] != new[tool]:
                yield f"~ {source} {tool}"


async def _login(arguments: argparse.Namespace) -> int:
    from seawall.cli.tool_login import log_in  # noqa: PLC0415 - only what this command needs

    return await log_in(arguments)


async def _doctor(arguments: argparse.Namespace) -> int:
    with requires_extra("seawall tools doctor", "tools"):
        from seawall.cli.tool_checks import check_sources  # noqa: PLC0415 - only what it needs
    from seawall.printable import printable  # noqa: PLC0415

    found: list[Check] = []

    def report(check: "Check") -> None:
        found.append(check)
        if not arguments.json:
            status = color(f"{check.status:<8}", _COLORS[check.status])
            print(f"{status} {check.name}: {printable(check.detail)}", flush=True)
            if check.advice:
                print(f"{'':8} -> {printable(check.advice)}", flush=True)

    await check_sources(_settings(arguments), report)
    failed = sum(each.status == "failed" for each in found)
    if arguments.json:
        import msgspec  # noqa: PLC0415

        print(json.dumps(msgspec.to_builtins(found)))
    else:
        warnings = sum(each.status == "warning" for each in found)
        shown = f"{failed} failed, {plural(warnings, 'warning')}"
        print(f"\n{plural(len(found), 'check')}: {shown}")
    return 1 if failed else 0
