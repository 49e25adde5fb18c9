"""The tools of all sources as they are now: listed at start, on change, and while one is down.

Listing never happens on the path of a turn. What a process offers is replaced as a whole when a
listing has succeeded.
"""

import asyncio
import logging
import random
import re
from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct

from seawall.errors import ConfigError, did_you_mean
from seawall.models import ToolSpec
from seawall.tools.pins import LOCK_FILE, Pins, digest
from seawall.tools.policy import EffectPolicy
from seawall.tools.port import Tool
from seawall.tools.remote import (
    ArgumentCheck,
    RemoteOperation,
    RemoteTool,
    ToolSource,
    UnusableOperation,
)
from seawall.tools.settings import McpSettings, OperationSettings, SourceSettings
from seawall.tools.upstream import ToolUpstream, UpstreamFault

__all__ = ["Listing", "Source", "ToolCatalog", "listed_by"]

_log = logging.getLogger("seawall.tools")
_MAX_TOOLS = 512
_MAX_DESCRIPTION = 8_192
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_CLOSE_SECONDS = 3.0
_not_in_names = re.compile(r"[^a-zA-Z0-9_-]")


class Source(Struct, frozen=True):
    """A configured source.

    Attributes:
        name: Of its table.
        settings: Its table.
        source: Lists its operations.
        upstream: The calls to it.
    """

    name: str
    settings: SourceSettings
    source: ToolSource
    upstream: ToolUpstream


Listing = tuple[RemoteOperation, ...] | UpstreamFault | ConfigError
"""What a source can do, or why that cannot be found out."""


async def listed_by(source: Source) -> Listing:
    """List a source.

    Args:
        source: The source.
    """
    loop = asyncio.get_running_loop()
    seconds = source.settings.limits.list_seconds
    try:
        async with asyncio.timeout(seconds):
            return await source.source.list(deadline=loop.time() + seconds)
    except TimeoutError:
        return UpstreamFault("late", f"there was no listing within {seconds:g} s")
    except (UpstreamFault, ConfigError) as error:
        return error
    except Exception as defect:  # noqa: BLE001 - of a listing, which is foreign
        _log.error("tools of %s cannot be listed", source.name, exc_info=defect)
        return UpstreamFault("broken", f"its listing cannot be read: {type(defect).__name__}")


class ToolCatalog:
    """The tools of all sources in this process.

    Attributes:
        sources: By name.
        tools: Of each source, by its name; a source that has not been listed yet has none.
        unavailable: Names of the sources that could not be listed.
        listings: What the sources have listed at first.
    """

    def __init__(
        self, sources: tuple[Source, ...], pins: Pins | None, taken: frozenset[str]
    ) -> None:
        """Create it without tools.

        Args:
            sources: All sources.
            pins: The lock file; None for none.
            taken: Names of other tools, which no tool of a source may have.
        """
        self.sources = {each.name: each for each in sources}
        self.tools: dict[str, tuple[Tool, ...]] = {}
        self.unavailable: set[str] = set()
        self.listings: Mapping[str, Listing] = {}
        self._pins = pins
        self._taken = taken
        self._due = {each.name: asyncio.Event() for each in sources}
        self._tasks: list[asyncio.Task[None]] = []
        for each in sources:
            each.source.subscribe(partial(self._request_listing, each.name))

    @property
    def upstreams(self) -> dict[str, ToolUpstream]:
        """The calls to each source, by its name."""
        return {name: each.upstream for name, each in self.sources.items()}

    async def list_all(self) -> None:
        """List all sources at once; one that cannot be reached is logged and listed later.

        Raises:
            ConfigError: A configuration is wrong, or two tools have one name.
        """
        async with asyncio.TaskGroup() as group:
            listings = {
                name: group.create_task(listed_by(each)) for name, each in self.sources.items()
            }
        self.take({name: each.result() for name, each in listings.items()})

    def take(self, listings: Mapping[str, Listing]) -> None:
        """Offer what all sources have listed.

        Args:
            listings: By the name of the source.

        Raises:
            ConfigError: A configuration is wrong, or two tools have one name.
        """
        self.listings = listings
        failed: ConfigError | None = None
        for name in self.sources:
            listed = listings[name]
            if isinstance(listed, ConfigError):
                failed = failed or listed
            elif isinstance(listed, UpstreamFault):
                self.unavailable.add(name)
                self._due[name].set()
                _log.warning("tools of %s cannot be listed now: %s", name, listed)
            else:
                self._accept(name, listed)
        if failed is not None:
            raise failed

    def start(self, changed: Callable[[], None]) -> None:
        """Start to list again what is down or has changed.

        Args:
            changed: Called whenever `tools` is another than before.
        """
        self._tasks = [asyncio.create_task(self._keep_listed(each, changed)) for each in self._due]

    async def close(self) -> None:
        """Stop listing and close the sources."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self.sources.values():
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await each.source.close()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                _log.warning("tools of %s: cannot be closed: %r", each.name, error)

    def _request_listing(self, name: str) -> None:
        self._due[name].set()

    async def _keep_listed(self, name: str, changed: Callable[[], None]) -> None:
        """List one source again whenever that is due; the pause grows while it is down."""
        due, failures = self._due[name], 0
        while True:
            await due.wait()
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            due.clear()
            before = self.tools.get(name)
            if not await self._list_again(name):
                failures += 1
                due.set()
                continue
            failures = 0
            if self.tools.get(name) == before:
                continue
            try:
                changed()
            except ConfigError as error:
                _log.error("tools have changed; the agents keep those before: %s", error)
            except Exception as defect:  # noqa: BLE001 - what is offered is foreign
                _log.error("tools have changed; the agents keep those before", exc_info=defect)

    async def _list_again(self, name: str) -> bool:
        """List a source; whether it was reached."""
        listed = await listed_by(self.sources[name])
        if isinstance(listed, UpstreamFault):
            return False
        if isinstance(listed, ConfigError):
            _log.error("tools of %s: %s", name, listed)
            return True
        try:
            self._accept(name, listed)
        except ConfigError as error:
            _log.error("tools of %s keep as they were: %s", name, error)
        except Exception as defect:  # noqa: BLE001 - what is listed is foreign
            _log.error("tools of %s keep as they were", name, exc_info=defect)
        else:
            _log.warning("tools of %s were listed: %d", name, len(self.tools[name]))
        return True

    def _accept(self, name: str, operations: tuple[RemoteOperation, ...]) -> None:
        """Offer what a source has listed.

        Raises:
            ConfigError: A name is taken, or an override is of no tool.
        """
        source = self.sources[name]
        key = f"tools.{name}"
        if isinstance(source.settings, McpSettings):
            operations = _included(key, source.settings.include, operations)
        if len(operations) > _MAX_TOOLS:
            raise ConfigError(
                f"{key}: {len(operations)} tools, more than {_MAX_TOOLS}; name those that are "
                "needed in include"
            )
        known = {each for operation in operations for each in _names(operation)}
        for override in source.settings.overrides:
            if override not in known:
                meant = did_you_mean(override, known)
                raise ConfigError(f'{key}.overrides: there is no tool "{override}"{meant}')
        others = self._taken | {
            each.name for other, made in self.tools.items() if other != name for each in made
        }
        made: dict[str, Tool] = {}
        earlier = {
            each.operation.name: each
            for each in self.tools.get(name, ())
            if isinstance(each, RemoteTool)
        }
        for operation in operations:
            try:
                tool = _tool(source, operation, earlier.get(operation.name))
                if not self._is_pinned(source, operation):
                    continue
            except UnusableOperation as error:
                _log.warning("tool %s of %s is not offered: %s", operation.name, name, error)
                continue
            if tool.name in made or tool.name in others:
                raise ConfigError(
                    f"{key}: two tools have the name {tool.name}; set {key}.prefix, or "
                    f"{key}.overrides.{operation.name}.name"
                )
            made[tool.name] = tool
        self.tools[name] = tuple(made.values())
        self.unavailable.discard(name)

    def _is_pinned(self, source: Source, operation: RemoteOperation) -> bool:
        """Whether a tool is as the lock file says, or may be offered nevertheless."""
        if self._pins is None or source.settings.pin == "off":
            return True
        pinned = self._pins.sources.get(source.name, {}).get(operation.name)
        if pinned == digest(operation):
            return True
        what = "is not in" if pinned is None else "has changed since"
        report = source.settings.pin == "report"
        _log.log(
            logging.WARNING if report else logging.ERROR,
            "tool %s of %s %s %s%s; read its definition, then: seawall tools lock CONFIG",
            *(operation.name, source.name, what, LOCK_FILE, "" if report else " and is refused"),
        )
        return report


def _names(operation: RemoteOperation) -> tuple[str, ...]:
    return (operation.name, *operation.aliases)


def _included(
    key: str, include: tuple[str, ...], operations: tuple[RemoteOperation, ...]
) -> tuple[RemoteOperation, ...]:
    """The operations that are named; all with "*".

    Raises:
        ConfigError: There is no operation of a name.
    """
    known = {each.name for each in operations}
    for name in include:
        if name != "*" and name not in known:
            raise ConfigError(
                f'{key}.include: there is no tool "{name}"{did_you_mean(name, known)}'
            )
    return operations if "*" in include else tuple(e for e in operations if e.name in include)


def _tool(source: Source, operation: RemoteOperation, earlier: RemoteTool | None) -> RemoteTool:
    """The tool of an operation, with what the configuration changes in it.

    Args:
        source: Its source.
        operation: As listed.
        earlier: The tool of the listing before; the check of an equal schema is kept.

    Raises:
        UnusableOperation: It cannot be offered.
    """
    settings = source.settings
    named = (settings.overrides.get(each) for each in _names(operation))
    own = next((each for each in named if each is not None), OperationSettings())
    name = settings.prefix + (own.name or _not_in_names.sub("_", operation.name))
    if not 1 <= len(name) <= 64:
        raise UnusableOperation(f"its name {name!r} is too long for models; set an override")
    changes = operation.changes if own.changes is None else own.changes
    if changes and own.cache_seconds is not None:
        raise UnusableOperation("it changes something, so that it cannot be cached")
    description = own.description or operation.description[:_MAX_DESCRIPTION]
    same = earlier is not None and earlier.operation.schema == operation.schema
    return RemoteTool(
        spec=ToolSpec(name, description, operation.schema),
        policy=EffectPolicy() if changes else None,
        cache_seconds=own.cache_seconds,
        shared=own.shared,
        source=source.name,
        operation=operation,
        upstream=source.upstream,
        arguments=earlier.arguments if earlier and same else ArgumentCheck(operation.schema),
        max_result_bytes=settings.max_result_bytes,
    )
