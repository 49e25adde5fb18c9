"""What a turn has with it while it runs."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from seawall.admission.gate import AdmissionGate
from seawall.agents.definition import Agent
from seawall.agents.loop import Emit
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

__all__ = ["Ports", "TurnContext"]


class Ports(Struct, frozen=True, kw_only=True):
    """What the pipeline stands on; composed once at start."""

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


class TurnContext(Struct):
    """One turn while it runs; nobody else's."""

    request: TurnRequest
    credential: Credential
    emit: Emit
    deadline: float
    timings: StageTimings
    report: TurnReport
    spending: Spending
    recovered_job: BackgroundJob | None = None
