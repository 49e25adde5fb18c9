"""Asking a model what the customer wants: the last and dearest step."""

from collections.abc import Sequence
from contextlib import aclosing

from seawall.intents.definition import Detection, IntentDefinition
from seawall.intents.features import MAX_CHARACTERS
from seawall.models.port import Finish, Meter, Model, ModelRequest, Prompt, Text
from seawall.turn import Usage, UserMessage

__all__ = ["ModelDetector"]

_NONE = "none"
_MAX_ANSWER_TOKENS = 32


class ModelDetector:
    """Asks a model for exactly one of the names."""

    def __init__(self, model: Model, definitions: Sequence[IntentDefinition]) -> None:
        self._model = model
        self._names = {definition.name.lower(): definition.name for definition in definitions}
        listed = "\n".join(
            f"{each.name}: {each.description or '; '.join(each.examples[:3])}"
            for each in definitions
        )
        self._prompt = Prompt(
            "Decide what the customer's message asks for. Answer with exactly one name from this "
            f"list, and nothing else; with {_NONE} where no entry fits.\n{listed}"
        )

    async def detect(self, text: str, *, deadline: float, meter: Meter | None = None) -> Detection:
        """The model's choice; an answer that is not on the list is "none of these".

        Raises:
            UpstreamFailed: the model failed.
            DeadlineExceeded: it did not answer in time.
        """
        request = ModelRequest(
            self._prompt, (UserMessage(text[:MAX_CHARACTERS]),), _MAX_ANSWER_TOKENS, 0.0, meter
        )
        answer, usage = "", Usage()
        async with aclosing(self._model.stream(request, deadline=deadline)) as stream:
            async for event in stream:
                if isinstance(event, Text):
                    answer += event.text
                elif isinstance(event, Finish):
                    usage = event.usage
        said = answer.strip().strip("\"'`.").lower()
        return Detection(self._names.get(said), 1.0, "model", usage)
