"""Seawall: an AI orchestrator that stays predictable under load.

The names in `__all__` are the public API; everything else is private and may change. `import
seawall` imports none of them: each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.agents import AgentLimits
    from seawall.config import (
        AgentSettings,
        CorsSettings,
        IntentSettings,
        RoutingSettings,
        ServerSettings,
        Settings,
        ToolsetSettings,
        load_settings,
        parse_settings,
    )
    from seawall.errors import (
        AlreadyDecided,
        BodyTooLarge,
        BudgetExhausted,
        ClientAbsent,
        CommitUnknown,
        ConfigError,
        DeadlineExceeded,
        EffectUnknown,
        Forbidden,
        HeadersTooLarge,
        IdentityUnavailable,
        InternalError,
        InvalidField,
        InvalidOutput,
        InvalidRequest,
        KeyReused,
        MethodNotAllowed,
        NotFound,
        Overloaded,
        Problem,
        QuotaExhausted,
        RequestTimeout,
        SeawallError,
        ServerStopping,
        SessionBusy,
        SessionConflict,
        SessionNotFound,
        StorageExhausted,
        StoreUnavailable,
        TurnAbandoned,
        TurnCancelled,
        TurnInterrupted,
        TurnIsPaused,
        TurnLimitReached,
        TurnNotFound,
        TurnPostponed,
        Unauthenticated,
        UnknownAgent,
        UnknownFile,
        UnsupportedEncoding,
        UpstreamFailed,
        UpstreamRefused,
        UpstreamThrottled,
        UpstreamUnavailable,
    )
    from seawall.events import (
        AgentSelected,
        ApprovalRequested,
        Event,
        IntentDetected,
        ReasoningDelta,
        TextDelta,
        ToolCalled,
        ToolReturned,
        TurnCompleted,
        TurnFailed,
        TurnPaused,
        TurnQueued,
        TurnResumed,
        TurnStarted,
        UsageReported,
    )
    from seawall.identity.outbound.subject_store import SubjectToken, SubjectTokens
    from seawall.identity.settings import ApiKeySettings, IdentitySettings, JwtSettings
    from seawall.models import (
        Finish,
        Model,
        ModelEvent,
        ModelRequest,
        Progress,
        Prompt,
        Text,
        ToolCalls,
        ToolSpec,
    )
    from seawall.models.scripted import ScriptedModel
    from seawall.orchestrator import Orchestrator
    from seawall.requests import new_request
    from seawall.settings import (
        AdmissionSettings,
        AnswerCacheSettings,
        AttachmentSettings,
        BlobSettings,
        BudgetLimits,
        BudgetSettings,
        CacheLimits,
        EffectSettings,
        ModelSettings,
        OutputSettings,
        PriceSettings,
        QuotaSettings,
        ResilienceSettings,
        SessionSettings,
        StageLimits,
        TelemetrySettings,
        TenantSettings,
        ToolPolicySettings,
    )
    from seawall.tools.policy import Approval
    from seawall.tools.port import Cited, Tool, ToolContext, ToolError, ToolOutcome
    from seawall.tools.toolset import Toolset, tool
    from seawall.turn import (
        AnswerOptions,
        AssistantMessage,
        Attachment,
        ClientTool,
        Cost,
        Message,
        OutputFormat,
        Principal,
        Source,
        ToolCall,
        ToolMessage,
        TurnReport,
        TurnRequest,
        Usage,
        UserMessage,
    )

    __version__: str

__all__ = [
    "AdmissionSettings",
    "AgentLimits",
    "AgentSelected",
    "AgentSettings",
    "AlreadyDecided",
    "AnswerCacheSettings",
    "AnswerOptions",
    "ApiKeySettings",
    "Approval",
    "ApprovalRequested",
    "AssistantMessage",
    "Attachment",
    "AttachmentSettings",
    "BlobSettings",
    "BodyTooLarge",
    "BudgetExhausted",
    "BudgetLimits",
    "BudgetSettings",
    "CacheLimits",
    "Cited",
    "ClientAbsent",
    "ClientTool",
    "CommitUnknown",
    "ConfigError",
    "CorsSettings",
    "Cost",
    "DeadlineExceeded",
    "EffectSettings",
    "EffectUnknown",
    "Event",
    "Finish",
    "Forbidden",
    "HeadersTooLarge",
    "IdentitySettings",
    "IdentityUnavailable",
    "IntentDetected",
    "IntentSettings",
    "InternalError",
    "InvalidField",
    "InvalidOutput",
    "InvalidRequest",
    "JwtSettings",
    "KeyReused",
    "Message",
    "MethodNotAllowed",
    "Model",
    "ModelEvent",
    "ModelRequest",
    "ModelSettings",
    "NotFound",
    "Orchestrator",
    "OutputFormat",
    "OutputSettings",
    "Overloaded",
    "PriceSettings",
    "Principal",
    "Problem",
    "Progress",
    "Prompt",
    "QuotaExhausted",
    "QuotaSettings",
    "ReasoningDelta",
    "RequestTimeout",
    "ResilienceSettings",
    "RoutingSettings",
    "ScriptedModel",
    "SeawallError",
    "ServerSettings",
    "ServerStopping",
    "SessionBusy",
    "SessionConflict",
    "SessionNotFound",
    "SessionSettings",
    "Settings",
    "Source",
    "StageLimits",
    "StorageExhausted",
    "StoreUnavailable",
    "SubjectToken",
    "SubjectTokens",
    "TelemetrySettings",
    "TenantSettings",
    "Text",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolCalled",
    "ToolCalls",
    "ToolContext",
    "ToolError",
    "ToolMessage",
    "ToolOutcome",
    "ToolPolicySettings",
    "ToolReturned",
    "ToolSpec",
    "Toolset",
    "ToolsetSettings",
    "TurnAbandoned",
    "TurnCancelled",
    "TurnCompleted",
    "TurnFailed",
    "TurnInterrupted",
    "TurnIsPaused",
    "TurnLimitReached",
    "TurnNotFound",
    "TurnPaused",
    "TurnPostponed",
    "TurnQueued",
    "TurnReport",
    "TurnRequest",
    "TurnResumed",
    "TurnStarted",
    "Unauthenticated",
    "UnknownAgent",
    "UnknownFile",
    "UnsupportedEncoding",
    "UpstreamFailed",
    "UpstreamRefused",
    "UpstreamThrottled",
    "UpstreamUnavailable",
    "Usage",
    "UsageReported",
    "UserMessage",
    "__version__",
    "load_settings",
    "new_request",
    "parse_settings",
    "tool",
]

# By module, the public names that are imported from it.
_NAMES = {
    "seawall.agents": "AgentLimits",
    "seawall.config": """
        AgentSettings CorsSettings IntentSettings RoutingSettings ServerSettings Settings
        ToolsetSettings load_settings parse_settings
    """,
    "seawall.errors": """
        ClientAbsent
        AlreadyDecided BodyTooLarge BudgetExhausted CommitUnknown ConfigError DeadlineExceeded
        EffectUnknown Forbidden HeadersTooLarge IdentityUnavailable InternalError InvalidField
        InvalidOutput InvalidRequest KeyReused MethodNotAllowed NotFound Overloaded Problem
        QuotaExhausted RequestTimeout SeawallError ServerStopping SessionBusy SessionConflict
        SessionNotFound StorageExhausted StoreUnavailable TurnAbandoned TurnCancelled
        TurnInterrupted TurnIsPaused TurnLimitReached TurnNotFound TurnPostponed Unauthenticated
        UnknownAgent UnknownFile UnsupportedEncoding UpstreamFailed UpstreamRefused
        UpstreamThrottled UpstreamUnavailable
    """,
    "seawall.events": """
        AgentSelected ApprovalRequested Event IntentDetected ReasoningDelta TextDelta ToolCalled
        ToolReturned TurnCompleted TurnFailed TurnPaused TurnQueued TurnResumed TurnStarted
        UsageReported
    """,
    "seawall.identity.outbound.subject_store": "SubjectToken SubjectTokens",
    "seawall.identity.settings": "ApiKeySettings IdentitySettings JwtSettings",
    "seawall.models": """
        Finish Model ModelEvent ModelRequest Progress Prompt Text ToolCalls ToolSpec
    """,
    "seawall.models.scripted": "ScriptedModel",
    "seawall.orchestrator": "Orchestrator",
    "seawall.requests": "new_request",
    "seawall.settings": """
        AdmissionSettings AnswerCacheSettings AttachmentSettings BlobSettings BudgetLimits
        BudgetSettings CacheLimits
        ModelSettings OutputSettings PriceSettings QuotaSettings ResilienceSettings
        EffectSettings SessionSettings StageLimits TelemetrySettings TenantSettings
        ToolPolicySettings
    """,
    "seawall.tools.policy": "Approval",
    "seawall.tools.port": "Cited Tool ToolContext ToolError ToolOutcome",
    "seawall.tools.toolset": "Toolset tool",
    "seawall.turn": """
        AnswerOptions AssistantMessage Attachment ClientTool Cost Message OutputFormat Principal
        Source ToolCall ToolMessage TurnReport TurnRequest Usage UserMessage
    """,
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), so that a cold start stays short."""
    if name == "__version__":
        found: object = import_module("importlib.metadata").version("seawall")
    elif name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'seawall' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
