"""Ids of OpenAI's Responses API.

A response is a turn, up to where it pauses or ends; each continuation after a pause is a response
of its own. So the id of a response is that of its turn, with the number of the attempt that
continued it. A response can be found on any server by its id alone.
"""

import re

from msgspec import Struct

from seawall.errors import TurnNotFound
from seawall.hosts.http.client_calls import effect_of
from seawall.pipeline.replay import attempt_offset
from seawall.requests import session_of

__all__ = [
    "ResponseKey",
    "approval_id",
    "approval_wait",
    "response_key",
    "turn_key",
    "turn_of_item",
]

_RESPONSE = "resp_"
_TURN = "trn_"
_APPROVAL = "mcpr_"
_MAX_CHARACTERS = 256
_MAX_ATTEMPT_DIGITS = 6
_message = re.compile(r"msg_([A-Za-z0-9_-]{1,64}\.[0-9a-f]{1,64})(?:\.[0-9]{1,6})?-[a-z0-9]{1,6}\Z")
_call = re.compile(r"fc[o]?_")


class ResponseKey(Struct, frozen=True):
    """What a response is of.

    Attributes:
        turn: Id of the turn.
        attempt: Number of the attempt that continued the turn; 0 for its beginning.
    """

    turn: str
    attempt: int = 0

    @property
    def suffix(self) -> str:
        """Of the ids of the response and its items."""
        plain = self.turn.removeprefix(_TURN)
        return f"{plain}.{self.attempt}" if self.attempt else plain

    @property
    def id(self) -> str:
        """The id of the response."""
        return _RESPONSE + self.suffix

    @property
    def session(self) -> str:
        """Id of the turn's session."""
        return session_of(self.turn) or ""

    @property
    def after(self) -> int:
        """The position behind which its events are."""
        return attempt_offset(self.attempt) if self.attempt else 0


def response_key(response: str, field: str = "response_id") -> ResponseKey:
    """What the response of an id is of.

    Args:
        response: As sent.
        field: Its path in the body.

    Raises:
        TurnNotFound: It is not the id of a response.
    """
    session, _, own = response.removeprefix(_RESPONSE).partition(".")
    own, _, attempt = own.partition(".")
    number = int(attempt) if attempt.isdecimal() and len(attempt) <= _MAX_ATTEMPT_DIGITS else 0
    key = ResponseKey(f"{_TURN}{session}.{own}", number if number > 1 else 0)
    if len(response) > _MAX_CHARACTERS or not key.session or key.id != response:
        raise TurnNotFound("There is no response of this id for this caller.", field=field)
    return key


def turn_key(turn: str, after: int) -> ResponseKey:
    """The response that begins behind a position of a turn.

    Args:
        turn: Id of the turn.
        after: The position, which is that before an attempt.
    """
    return ResponseKey(turn, after // attempt_offset(2) + 1)


def approval_id(turn: str, call: str) -> str:
    """The id of a request for approval."""
    return f"{_APPROVAL}{turn.removeprefix(_TURN)}/{call}"


def approval_wait(approval: str) -> tuple[str, str]:
    """Turn and call of the id of a request for approval; two empty texts for another id."""
    turn, _, call = approval.removeprefix(_APPROVAL).partition("/")
    if not (approval.startswith(_APPROVAL) and call and session_of(_TURN + turn)):
        return "", ""
    return _TURN + turn, call


def turn_of_item(item: str) -> str:
    """The turn of a message, or of a call of the client and its result; empty for other items.

    Args:
        item: Its id.
    """
    if (found := _message.match(item)) is not None:
        return _TURN + found[1]
    return effect_of(_call.sub("call_", item, count=1)).rpartition(".")[0]
