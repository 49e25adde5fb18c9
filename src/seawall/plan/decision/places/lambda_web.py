"""Lambda Web Functions, which AWS documents and which cannot be planned for yet."""

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.decision.answer import Configuration, PlatformAnswer, PlatformName
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["WEB"]

# https://docs.aws.amazon.com/lambda/latest/dg/web-functions-scaling.html, read on 2026-11-29.
_WHY = (
    "not applicable: an environment serves up to 128 requests at once, but its runtimes, start "
    "rate and prices could not be verified"
)


class WebFunctions(Struct, frozen=True, kw_only=True):
    """A place that is never a candidate."""

    name: PlatformName = "lambda-web"
    title: str = "Lambda Web Functions"
    short: str = "Lambda Web Functions"
    family: Family = "functions"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        return (_WHY,)

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """Raises ConfigError: it is no candidate."""
        raise ConfigError(f"{self.title}: {_WHY}")

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        return None

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """See `Place`."""
        return candidate.rest

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        return ()

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        return []

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return []

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """Raises ConfigError: it is no candidate."""
        raise ConfigError(f"deployed.platform: {self.name}: {_WHY}")


WEB = WebFunctions()
