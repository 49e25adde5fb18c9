"""What the application is notified of: hand-overs that begin and end, and messages meanwhile."""

import time
from collections.abc import Mapping

import msgspec

from seawall.pipeline.delivery import next_delivery
from seawall.storage.port import Notification, Wait
from seawall.tools.port import truncate
from seawall.turn import Effect, SessionKey, TurnRecord

__all__ = ["handover_notification", "message_notification"]

_ENDED_SECONDS = 3 * 86_400.0
_MAX_TEXT_BYTES = 32_768


def handover_notification(effect: Effect, key: SessionKey, turn: TurnRecord) -> Notification:
    """The notification of a hand-over that begins, or has ended.

    Args:
        effect: Waiting, or ended.
        key: The session.
        turn: The turn that is handed over.
    """
    request = effect.request
    assert request is not None  # noqa: S101 - a hand-over has one
    about: dict[str, object] = {"turn": turn.id, "wait": effect.id, "agent": effect.agent}
    if effect.status == "waiting":
        reason = msgspec.json.decode(effect.arguments)["reason"]
        about |= {"type": "handover.requested", "reason": reason, "expires_at": request.expires_at}
        return _new(effect.id, key, about, request.expires_at)
    decision = request.decision
    returned = decision is not None and decision.verdict == "return"
    about |= {
        "type": "handover.ended",
        "outcome": "returned" if returned else "expired",
        "by": decision.by if decision is not None else "",
        "at": effect.ended_at,
    }
    return _new(f"{effect.id}.ended", key, about, time.time() + _ENDED_SECONDS)


def message_notification(turn: TurnRecord, text: str, wait: Wait) -> Notification:
    """The notification of a message of the user while a person has the conversation.

    Args:
        turn: The message, as a turn.
        text: Its text.
        wait: The hand-over.
    """
    message = {
        "id": turn.id,
        "number": turn.number,
        "text": truncate(text, _MAX_TEXT_BYTES),
        "created_at": turn.created_at,
    }
    body = {"type": "message.received", "turn": wait.turn, "wait": wait.id}
    return _new(turn.id, wait.key, body | {"message": message}, wait.expires_at)


def _new(name: str, key: SessionKey, body: Mapping[str, object], ends_at: float) -> Notification:
    """A notification whose first delivery begins now."""
    owner = {"tenant": key.tenant, "subject": key.subject, "session": key.session}
    text = msgspec.json.encode({**body, **owner}).decode()
    return Notification(id=name, key=key, body=text, ends_at=ends_at, due=next_delivery(1))
