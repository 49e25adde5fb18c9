"""The checks of `seawall tools doctor` and of the tools in `seawall doctor`."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from seawall.cli.arguments import plural
from seawall.cli.checks import Check, Status
from seawall.config import Settings
from seawall.errors import ConfigError
from seawall.tools.catalog import Listing, Source, ToolCatalog, listed_by
from seawall.tools.openapi.source import OpenApiSource
from seawall.tools.pins import LOCK_FILE, digest, read_pins
from seawall.tools.remote import ArgumentCheck, RemoteOperation, UnusableOperation
from seawall.tools.settings import McpSettings
from seawall.tools.sources import open_catalog
from seawall.tools.upstream import UpstreamFault

__all__ = ["check_listed", "check_sources"]

_SHOWN = 5
_ADVICE = {
    "unreachable": "check the address, DNS, firewalls and tls.ca_file",
    "broken": "check the address and its path",
    "failed": "see the log of the service",
    "refused": "check auth",
    "late": "check the network, or raise limits.list_seconds",
    "throttled": "wait, or ask its operator for a higher limit",
}


_LOCK = "seawall tools lock CONFIG"


async def check_sources(settings: Settings, report: Callable[[Check], None]) -> None:
    """Check every source of tools elsewhere, and whether all can be offered together.

    Args:
        settings: What is checked.
        report: Called with each finding, as soon as there is one.

    Raises:
        ConfigError: None is configured.
    """
    if not settings.sources:
        raise ConfigError("no OpenAPI document or MCP server is configured: nothing to check")
    catalog = open_catalog(
        settings.sources,
        folder=settings.folder,
        environment=os.environ,
        tenants=settings.tenants,
    )
    try:
        listings: dict[str, Listing] = {}
        for done in asyncio.as_completed([_listed(each) for each in catalog.sources.values()]):
            source, listed = await done
            listings[source.name] = listed
            await _check_source(settings, source, listed, report)
        try:
            catalog.take(listings)
        except ConfigError as error:
            report(Check("tools", "failed", str(error)))
    finally:
        await catalog.close()


async def check_listed(
    settings: Settings, catalog: ToolCatalog, report: Callable[[Check], None]
) -> None:
    """Check every source of a catalog that is open, without listing anything again.

    Args:
        settings: What is checked.
        catalog: All can be offered together.
        report: Called with each finding.
    """
    for name, listed in catalog.listings.items():
        await _check_source(settings, catalog.sources[name], listed, report)


async def _listed(source: Source) -> tuple[Source, Listing]:
    return source, await listed_by(source)


async def _check_source(
    settings: Settings, source: Source, listed: Listing, report: Callable[[Check], None]
) -> None:
    key = f"tools.{source.name}"
    if isinstance(listed, UpstreamFault):
        report(Check(key, "failed", str(listed), _advice(source, listed)))
        return
    if isinstance(listed, ConfigError):
        report(Check(key, "failed", str(listed)))
        return
    report(Check(key, "ok" if listed else "warning", plural(len(listed), "tool")))
    if isinstance(source.source, OpenApiSource):
        report(await _connected(source, source.source))
    report(_usable(source, listed))
    if (pins := _pins(source, listed, settings)) is not None:
        report(pins)


async def _connected(source: Source, service: OpenApiSource) -> Check:
    """Whether the service of a document is reached; listing reads the document only."""
    key = f"tools.{source.name} (service)"
    deadline = asyncio.get_running_loop().time() + source.settings.limits.connect_seconds
    try:
        await service.connect(deadline=deadline)
    except UpstreamFault as fault:
        return Check(key, "failed", str(fault), _advice(source, fault))
    return Check(key, "ok", "reached; no request was sent")


def _advice(source: Source, fault: UpstreamFault) -> str:
    settings = source.settings
    if isinstance(settings, McpSettings) and settings.command:
        return "check command, cwd and env_pass; --log-level info shows what the process writes"
    return _ADVICE.get(fault.kind, "")


def _usable(source: Source, operations: tuple[RemoteOperation, ...]) -> Check:
    faults = []
    for each in operations:
        try:
            ArgumentCheck(each.schema)
        except UnusableOperation as error:
            faults.append(f"{each.name}: {error}")
    key = f"tools.{source.name} (schemas)"
    if faults:
        return Check(key, "warning", "; ".join(faults[:_SHOWN]), "these are not offered")
    return Check(key, "ok", "all are usable")


def _pins(
    source: Source, operations: tuple[RemoteOperation, ...], settings: Settings
) -> Check | None:
    key = f"tools.{source.name} ({LOCK_FILE})"
    if source.settings.pin == "off":
        return None
    pins = read_pins(Path(settings.folder, LOCK_FILE))
    if pins is None:
        advice = f"read the definitions (seawall tools list CONFIG --json), then: {_LOCK}"
        return Check(key, "warning", "there is no lock file: changes are not noticed", advice)
    known = pins.sources.get(source.name, {})
    changed = [each.name for each in operations if known.get(each.name) != digest(each)]
    if not changed:
        return Check(key, "ok", "all are as locked")
    shown = ", ".join(changed[:_SHOWN])
    status: Status = "failed" if source.settings.pin == "refuse" else "warning"
    return Check(key, status, f"new or changed: {shown}", f"read them, then: {_LOCK}")
