"""`/console/api/logins`: who is logged in, and the end of logins before their time."""

import logging
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from seawall.console.access import Login, Viewer
from seawall.console.service import ConsoleService
from seawall.errors import Forbidden, NotFound
from seawall.hosts.http.bodies import decode
from seawall.hosts.http.console_access import ConsoleAccess
from seawall.hosts.http.exchange import Exchange
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["ConsoleLogins"]

_audit = logging.getLogger("seawall.audit")
_MAX_BODY_BYTES = 8_192
_MAX_LISTED = 200
_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class _Subject(Struct, forbid_unknown_fields=True):
    """Whose logins are ended."""

    tenant: _Name
    subject: _Name


class ConsoleLogins:
    """Endpoints of logins: one's own; of all, for who may operate."""

    def __init__(self, access: ConsoleAccess, service: ConsoleService) -> None:
        """Create them.

        Args:
            access: Decides who may end which.
            service: Asks all workers.
        """
        self._access = access
        self._service = service
        self._decoder = msgspec.json.Decoder(_Subject)

    async def listing(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /console/api/logins`: those that the workers have seen, used last first."""
        viewer = await self._access.viewer(exchange, "look")
        seen = await self._service.seen_logins()
        mine = viewer.login.id if viewer.login is not None else ""
        listed = [
            {
                "id": each.login.id,
                "tenant": each.login.tenant,
                "subject": each.login.subject,
                "began_at": each.login.began_at,
                "expires_at": each.login.expires_at,
                "seen_at": each.seen_at,
                "address": each.login.address,
                "agent": each.login.agent,
                "own": _is_own(viewer, each.login.tenant, each.login.subject),
                "this": each.login.id == mine,
            }
            for each in seen
            if _may_end(viewer, each.login)
        ]
        answer = {"logins": listed[:_MAX_LISTED], "more": len(listed) > _MAX_LISTED}
        await exchange.answer(answer, headers=[(b"cache-control", b"no-store")])

    async def end(self, exchange: Exchange, login: str) -> None:
        """`POST /console/api/logins/{id}/end`: end one.

        Raises:
            NotFound: It is not known, or is another person's.
        """
        viewer = await self._access.viewer(exchange, "look", change=True)
        await exchange.body(limit=_MAX_BODY_BYTES, seconds=1.0)
        found = [
            each.login
            for each in await self._service.seen_logins()
            if each.login.id == login and _may_end(viewer, each.login)
        ]
        if not found:
            raise NotFound("There is no such login.")
        await self._access.logins.end(found[0])
        await self._ended(exchange, viewer, found[0].tenant, found[0].subject, "a login")

    async def end_all(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`POST /console/api/logins/end`: end all logins of a subject until now.

        Raises:
            Forbidden: They are another person's.
        """
        viewer = await self._access.viewer(exchange, "look", change=True)
        seconds = orchestrator.settings.server.body_seconds
        body = decode(self._decoder, await exchange.body(limit=_MAX_BODY_BYTES, seconds=seconds))
        own = _is_own(viewer, body.tenant, body.subject)
        if not own and "operate" not in viewer.permissions:
            raise Forbidden("This needs the permission 'operate' of the console.")
        await self._access.logins.end_all(body.tenant, body.subject)
        await self._ended(exchange, viewer, body.tenant, body.subject, "all logins")

    async def _ended(
        self, exchange: Exchange, viewer: Viewer, tenant: str, subject: str, what: str
    ) -> None:
        await self._service.seen_logins(anew=True)  # so that no worker relies on an old answer
        who = viewer.principal
        names = map(printable, (who.subject, who.tenant, subject, tenant))
        _audit.info(f"%s of %s ends {what} of %s of %s to the console", *names)
        await exchange.no_content([(b"cache-control", b"no-store")])


def _is_own(viewer: Viewer, tenant: str, subject: str) -> bool:
    return (viewer.principal.tenant, viewer.principal.subject) == (tenant, subject)


def _may_end(viewer: Viewer, login: Login) -> bool:
    return "operate" in viewer.permissions or _is_own(viewer, login.tenant, login.subject)
