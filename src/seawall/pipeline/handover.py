"""Notification that a turn waits for a person: delivered at least once.

What was delivered is in the turn's journal. While it was not, the paused turn's job wakes up to try
again, in any process, until the wait expires.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import structs

from seawall.turn import ApprovalRequest, Effect, SessionKey

__all__ = ["notify"]

_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 900.0


async def notify(
    deliver: Callable[[str, bytes], Awaitable[bool]],
    effects: Sequence[Effect],
    key: SessionKey,
    turn: str,
) -> list[Effect]:
    """Try to deliver what waits for a person and was not notified.

    Args:
        deliver: Sends a body under an id; false if it did not arrive.
        effects: Of a step whose turn pauses.
        key: The session.
        turn: Its id.

    Returns:
        The effects, with what became of their notifications.
    """
    notified = (_notified(deliver, each, key, turn) for each in effects)
    return list(await asyncio.gather(*notified))


async def _notified(
    deliver: Callable[[str, bytes], Awaitable[bool]], effect: Effect, key: SessionKey, turn: str
) -> Effect:
    request = effect.request
    if request is None or effect.status != "waiting" or request.kind != "person":
        return effect
    if request.notified or time.time() < request.notice_at:
        return effect
    body = {
        "type": "handover.requested",
        "tenant": key.tenant,
        "subject": key.subject,
        "session": key.session,
        "turn": turn,
        "wait": effect.id,
        "agent": effect.agent,
        "reason": msgspec.json.decode(effect.arguments)["reason"],
        "expires_at": request.expires_at,
    }
    delivered = await deliver(effect.id, msgspec.json.encode(body))
    return structs.replace(effect, request=_after(request, delivered=delivered))


def _after(request: ApprovalRequest, *, delivered: bool) -> ApprovalRequest:
    """A request after an attempt; the pause before the next one doubles, with jitter."""
    pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(request.notices, 16), _LONGEST_PAUSE_SECONDS)
    pause *= random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return structs.replace(
        request,
        notices=request.notices + 1,
        notified=delivered,
        notice_at=0.0 if delivered else time.time() + pause,
    )
