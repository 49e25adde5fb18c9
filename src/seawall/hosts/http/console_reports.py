"""`/console/reports`: HTML reports of `seawall plan` and `seawall surge`, from a folder.

A report is shown in a sandbox: its scripts run, but of an origin of their own, without the login
and without the network.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from seawall.errors import NotFound, Overloaded
from seawall.hosts.http.console_access import ConsoleAccess
from seawall.hosts.http.exchange import Exchange

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["ConsoleReports"]

_MAX_REPORTS = 500
_MAX_BYTES = 33_554_432
_MAX_SENDING = 4  # at the same time, as each is in memory meanwhile
_POLICY = (
    b"sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    b"style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class _Report(Struct, frozen=True):
    """A report: its file, size in bytes, and when it was written, in Unix seconds."""

    name: str
    bytes: int
    written_at: float


class ConsoleReports:
    """Endpoints of the reports in one folder."""

    def __init__(self, access: ConsoleAccess) -> None:
        """Create them.

        Args:
            access: Decides who may see reports.
        """
        self._access = access
        folder = access.settings.reports
        self._folder = Path(folder) if folder else None
        self._sending = 0

    async def listing(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/reports`: the newest first."""
        await self._access.viewer(exchange, "look")
        reports = await asyncio.to_thread(self._reports)
        answer = {"reports": reports, "configured": self._folder is not None}
        await exchange.answer(answer, headers=[(b"cache-control", b"no-store")])

    async def show(self, exchange: Exchange, name: str) -> None:
        """`GET /console/reports/{name}`: a report, in its sandbox.

        Raises:
            NotFound: There is no such file in the folder.
            Overloaded: Too many are being sent to clients that read slowly.
        """
        await self._access.viewer(exchange, "look")
        if not any(each.name == name for each in await asyncio.to_thread(self._reports)):
            raise NotFound("There is no such report.")
        assert self._folder is not None  # noqa: S101 - it has reports
        if self._sending >= _MAX_SENDING:
            raise Overloaded("Too many reports are being sent.", retry_after=1.0)
        self._sending += 1
        try:
            try:
                body = await asyncio.to_thread((self._folder / name).read_bytes)
            except OSError as error:
                raise NotFound("There is no such report.") from error
            await exchange.answer(body, headers=_HEADERS, content_type=b"text/html; charset=utf-8")
        finally:
            self._sending -= 1

    def _reports(self) -> list[_Report]:
        """The files of the folder itself that are no links and not too large."""
        if self._folder is None:
            return []
        found: list[_Report] = []
        try:
            for entry in self._folder.iterdir():
                if entry.suffix == ".html" and entry.is_file() and not entry.is_symlink():
                    state = entry.stat()
                    if state.st_size <= _MAX_BYTES:
                        found.append(_Report(entry.name, state.st_size, state.st_mtime))
        except OSError:  # it is gone, or was removed meanwhile
            return found
        found.sort(key=lambda each: each.written_at, reverse=True)
        return found[:_MAX_REPORTS]
