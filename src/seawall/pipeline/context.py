"""The context of a turn in progress, and the ports that all turns use."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from seawall.admission.gate import AdmissionGate
from seawall.agents.calls import Emit
from seawall.agents.definition import Agent
from seawall.budgets.spending import Spending
from seawall.identity.port import Authenticator, Credential
from seawall.intents.cascade import IntentDetector
from seawall.pipeline.report import Observe, TurnReport
from seawall.pipeline.routing import Routing
from seawall.pipeline.stages import StageLimits, StageTimings
from seawall.spans import Tracer
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.storage.settings import SessionSettings
from seawall.turn import TurnRequest

if TYPE_CHECKING:
    from seawall.caches.answers import AnswerCache
    from seawall.pipeline.delivery import NotificationDelivery
    from seawall.pipeline.live import LiveTurn

__all__ = ["Ports", "TurnContext"]


class Ports(Struct, frozen=True, kw_only=True):
    """The ports that the pipeline uses; composed once at start.

    `next_message`: what happens to a session's next message while one of its turns is paused; see
    `EffectSettings`, also for `approval_seconds`. `notifications` delivers those of hand-overs;
    `person_notice` answers a message while a person has the conversation, empty for no answer.
    """

    authenticator: Authenticator
    store: SessionStore
    detector: IntentDetector
    agents: Mapping[str, Agent]
    routing: Routing
    gate: AdmissionGate
    limits: StageLimits
    sessions: SessionSettings
    observe: Observe
    answers: "AnswerCache | None" = None
    spending: Callable[[], Spending] = Spending
    tracer: Tracer | None = None
    next_message: Literal["answer", "queue", "refuse"] = "answer"
    approval_seconds: float = 86_400.0
    notifications: "NotificationDelivery | None" = None
    person_notice: str = ""


class TurnContext(Struct):
    """The state of one turn in progress; turns share nothing.

    Attributes:
        request: What was asked for.
        credential: Proves the identity of the sender.
        emit: Called with the turn's events.
        deadline: Seconds on the event loop's clock.
        timings: Durations of its stages.
        report: Filled in while it is in progress.
        spending: Charges its budgets.
        recovered_job: The background job that this turn continues, claimed from another process.
        live: The turn, if it can be found by id.
    """

    request: TurnRequest
    credential: Credential
    emit: Emit
    deadline: float
    timings: StageTimings
    report: TurnReport
    spending: Spending
    recovered_job: BackgroundJob | None = None
    live: "LiveTurn | None" = None
