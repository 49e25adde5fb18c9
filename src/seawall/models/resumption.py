"""An answer that broke off, told on from where it did, if it can be had again word for word."""

from seawall.errors import UpstreamFailed
from seawall.models.port import Finish, ModelEvent, Progress, Text, ToolCalls

__all__ = ["EmptyAnswer", "Resumption"]

# An answer that a bound or a filter ended may well be empty; asked again it would be the same.
_WHOLE = ("stop", "tool_calls", "other")


class EmptyAnswer(UpstreamFailed):
    """The model ended its answer, and had said nothing and called nothing."""


class Resumption:
    """What was shown of an answer, and how much of its repetition is still to be passed over.

    Args:
        enabled: Without it an answer of which something was shown cannot be had again.
        may_be_empty: It may end before its first word, where a client named a text to stop at.
    """

    __slots__ = ("_enabled", "_may_be_empty", "_repeated", "_shown", "begun")

    def __init__(self, *, enabled: bool, may_be_empty: bool = False) -> None:
        self._enabled = enabled
        self._may_be_empty = may_be_empty
        self._shown: list[str] = []
        self._repeated: str | None = None  # what the repetition has yet to say
        self.begun = False

    @property
    def possible(self) -> bool:
        """Whether the answer may be asked for again."""
        return self._enabled or not self.begun

    def restart(self) -> None:
        """The answer is asked for again."""
        if self.begun:
            shown = "".join(self._shown)
            self._shown = [shown]
            self._repeated = shown

    def take(self, event: ModelEvent) -> ModelEvent | None:
        """The next event as it is to be shown; None for what was shown before.

        Raises:
            UpstreamFailed: the repetition says something else, or the answer is empty.
        """
        if type(event) is Progress:
            return event
        if type(event) is not Text:
            if self._repeated:
                raise _differs()
            if type(event) is ToolCalls:
                self.begun = True
            elif type(event) is Finish and not self.begun and self._is_fault(event):
                raise EmptyAnswer("The model's answer was empty.")
            return event
        text = event.text
        if self._repeated:
            known = min(len(text), len(self._repeated))
            if text[:known] != self._repeated[:known]:
                raise _differs()
            self._repeated = self._repeated[known:]
            text = text[known:]
            if not text:
                return None
            event = Text(text)
        self.begun = True
        if self._enabled:
            self._shown.append(text)
        return event

    def _is_fault(self, end: Finish) -> bool:
        return end.reason in _WHOLE and not (self._may_be_empty and end.reason == "stop")


def _differs() -> UpstreamFailed:
    return UpstreamFailed("The answer broke off, and could not be had again as it was.")
