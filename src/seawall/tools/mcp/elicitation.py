"""What a server asks the user while it answers a request, and how that is answered.

A server of 2026-07-28 ends the call with its questions, and gets the answers with the next call.
One of an older version asks while the call runs: its question is cancelled, and the call is made
again from the beginning once the answer is known, which it then gets when it asks again.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from seawall.tools.mcp.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from seawall.tools.port import ToolContext, ToolOutcome
from seawall.tools.questions import read_question
from seawall.turn import PendingInput, Question

__all__ = ["Elicitations", "InputRequest", "InputRequired"]

_MAX_STATE_BYTES = 16_384
_MAX_QUESTIONS = 8  # of a round; more are declined
_MAX_KEY_CHARACTERS = 256  # by which a server knows a question of a round
_MAX_SHOWN_CHARACTERS = 1_000


class InputRequest(Struct):
    """Something that a server asks for."""

    method: str
    params: Raw = Raw()


class _Elicitation(Struct):
    message: str = ""


class _UrlRequired(Struct):
    elicitations: list[Raw] = []


class InputRequired(Exception):
    """The call goes on only with answers of the user; nothing has been done.

    Attributes:
        pending: What is asked.
    """

    def __init__(self, pending: PendingInput) -> None:
        super().__init__("the user is asked")
        self.pending = pending

    def outcome(self) -> ToolOutcome:
        """The outcome of the call."""
        return ToolOutcome("It waits for an answer of the user.", failed=True, asks=self.pending)


class Elicitations:
    """The questions within one request.

    Attributes:
        asked: Texts of those that were declined, for the model.
        unanswered: Those that the user is asked; for the server they are cancelled.
    """

    __slots__ = ("_context", "_redact", "_setting", "_source", "asked", "unanswered")

    def __init__(
        self,
        context: ToolContext | None = None,
        *,
        source: str = "",
        setting: bool | None = None,
        redact: tuple[str, ...] = (),
    ) -> None:
        """Begin without questions.

        Args:
            context: The turn; None outside of turns, where all is declined.
            source: Name of the source.
            setting: See `McpSettings.elicitation`.
            redact: As in `Question`.
        """
        self.asked: list[str] = []
        self.unanswered: dict[str, Question] = {}
        self._context = context
        self._source = source
        self._setting = setting
        self._redact = redact

    @property
    def _given(self) -> Mapping[str, dict[str, Any]]:
        given = self._context.given if self._context is not None else None
        return given.responses if given is not None else {}

    @property
    def _may_ask(self) -> bool:
        return self._context is not None and self._context.may_ask and self._setting is not False

    def respond(self, method: str, params: Raw) -> dict[str, Any]:
        """Answer what a server asks while the call runs.

        Args:
            method: What it asks for.
            params: JSON, or nothing.

        Raises:
            RpcError: This client does not offer it.
        """
        _check_method(method)
        question = self._question(params)
        if question is None:
            return self._decline(params)
        key = _key_of(question)
        if (known := self._given.get(key)) is not None:
            return known
        context = self._context
        repeats = context is not None and context.may_repeat and self._setting is True
        if not repeats or len(self.unanswered) >= _MAX_QUESTIONS:
            return self._decline(params)
        self.unanswered[key] = question
        return {"action": "cancel"}

    def take_pages(self, error: RpcError) -> None:
        """Take the pages that the user has to visit before a call that was refused.

        Args:
            error: With which it was refused.
        """
        try:
            listed = msgspec.json.decode(error.data, type=_UrlRequired).elicitations
        except (msgspec.DecodeError, RecursionError):
            return
        for each in listed[:_MAX_QUESTIONS]:
            question = self._question(each)
            if question is None or not question.url:
                continue
            key = _key_of(question)
            if self._given.get(key, {}).get("action", "accept") == "accept":
                self.unanswered[key] = question

    def pending(self) -> PendingInput | None:
        """What a call needs that was cancelled for its questions; None if it had none."""
        if not self.unanswered:
            return None
        return PendingInput(self.unanswered, dict(self._given), in_place=True)

    def of_round(
        self, requests: Mapping[str, InputRequest], state: str | None
    ) -> PendingInput | dict[str, Any]:
        """What a call needs that was answered with questions; or the responses that decline all.

        Args:
            requests: What the server asks, by its keys.
            state: What it wants back.

        Raises:
            RpcError: This client does not offer it.
        """
        for each in requests.values():
            _check_method(each.method)
        questions = {key: self._question(each.params) for key, each in requests.items()}
        wanted = {key: each for key, each in questions.items() if each is not None}
        bounded = (
            len(requests) <= _MAX_QUESTIONS
            and max(map(len, requests), default=0) <= _MAX_KEY_CHARACTERS
            and len((state or "").encode("utf-8", "replace")) <= _MAX_STATE_BYTES
        )
        if not wanted or not bounded:
            return {key: self._decline(each.params) for key, each in requests.items()}
        responses = {key: {"action": "decline"} for key in questions if key not in wanted}
        return PendingInput(wanted, responses, state)

    def _question(self, params: Raw) -> Question | None:
        """A question that the user can be asked; None if not."""
        if not self._may_ask:
            return None
        try:
            return read_question(self._source, params, self._redact)
        except (ValueError, RecursionError):
            return None

    def _decline(self, params: Raw) -> dict[str, Any]:
        try:
            question = msgspec.json.decode(params, type=_Elicitation)
        except (msgspec.DecodeError, RecursionError):
            raise RpcError(INVALID_PARAMS, "invalid parameters") from None
        self.asked.append(question.message[:_MAX_SHOWN_CHARACTERS])
        return {"action": "decline"}


def _check_method(method: str) -> None:
    if method != "elicitation/create":
        raise RpcError(METHOD_NOT_FOUND, f"{method[:80]} is not offered by this client")


def _key_of(question: Question) -> str:
    """By which a question is known again when the call is repeated."""
    return hashlib.sha256(
        msgspec.json.encode((question.message, question.schema, question.url), order="sorted")
    ).hexdigest()[:32]
