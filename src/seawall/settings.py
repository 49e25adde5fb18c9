"""Settings of the parts: tables of `seawall.toml` as typed data, with the checks of single tables.

`config` reads them. Those of identity and the Lambda host are with their packages.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct, field

from seawall.turn import Usage

__all__ = [
    "BILLION",
    "AdmissionSettings",
    "AnswerCacheSettings",
    "AttachmentSettings",
    "BlobSettings",
    "BudgetLimits",
    "BudgetSettings",
    "CacheLimits",
    "ConsoleLoginSettings",
    "ConsoleSettings",
    "EffectSettings",
    "HandoverSettings",
    "McpServerSettings",
    "MemorySettings",
    "ModelSettings",
    "OutputSettings",
    "PriceSettings",
    "Priority",
    "QuotaSettings",
    "ResilienceSettings",
    "SessionSettings",
    "StageLimits",
    "TelemetrySettings",
    "TenantSettings",
    "ToolPolicySettings",
    "budget_faults",
    "cost_of",
    "invalid_setting",
    "model_faults",
]

_Seconds = Annotated[float, Meta(gt=0, le=3_600)]
_Share = Annotated[float, Meta(ge=0, le=1)]

_CENTURY_SECONDS = 100 * 365 * 86_400.0  # databases do not store infinity


def _is_safe(url: SplitResult) -> bool:
    """Whether what is sent there cannot be read on the way."""
    local = url.hostname in ("localhost", "127.0.0.1", "::1")
    return url.scheme == "https" or (url.scheme == "http" and local)


class ToolPolicySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tool that changes something declares; a key that is not set leaves the tool's own.

    Attributes:
        approve: When a call needs approval: "always", "never", or a rule such as `amount > 100`.
        role: The role that approves; empty for the turn's own subject.
        own: Whether the turn's own subject may approve if it has the role.
        expires_seconds: Afterwards the call is rejected.
        retry: "key" if the service keeps the idempotency key with the change, else "never".
        duplicates: What happens to a second call of a step with the same arguments.
        independent: Whether it may run at the same time as other effects of its step.
        redact: Names of arguments, dotted for members, that are not shown in records.
    """

    approve: Annotated[str, Meta(min_length=1, max_length=4_096)] | None = None
    role: Annotated[str, Meta(max_length=128)] | None = None
    own: bool | None = None
    expires_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] | None = None
    retry: Literal["key", "never"] | None = None
    duplicates: Literal["refuse", "allow"] | None = None
    independent: bool | None = None
    redact: tuple[str, ...] | None = None


class EffectSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls of tools that change something: their approval, records and reconciliation.

    Attributes:
        operator_role: The role that may reconcile effects of its tenant over HTTP; empty for none.
        next_message: What happens to a session's next message while one of its turns is paused:
            "answer" answers it while that turn keeps waiting, "queue" lets it wait like for a turn
            that runs, "refuse" is an error.
        approval_seconds: How long an approval is waited for, if the tool does not say.
        client_seconds: How long the result of a tool that a client runs is waited for; then its
            turn ends.
        keep_seconds: How long audit records are kept.
        tools: What tools declare, by their names.
    """

    operator_role: Annotated[str, Meta(max_length=128)] = ""
    next_message: Literal["answer", "queue", "refuse"] = "answer"
    approval_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 86_400.0
    client_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 3_600.0
    keep_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 400 * 86_400.0
    tools: dict[str, ToolPolicySettings] = field(default_factory=dict)


class HandoverSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hand-over of conversations to people; with `url`, agents may have `handover`.

    Attributes:
        url: Where it is notified; https, or http to a loopback address. Empty for no hand-over.
        secret_env: Environment variable with the secret that signs notifications (`whsec_…`).
        secret_file: File with it, instead.
        ca_file: Authorities that are trusted for `url`; empty for those of the system.
        role: The role of the people who may answer, never the customer.
        seconds: How long a person may take; then the model reads that none has answered.
        notice: Answer to the user's messages while a person has the conversation; empty for none.
        description: Of the tool `hand_over_to_person`, for models.
    """

    url: str = ""
    secret_env: str = ""
    secret_file: str = ""
    ca_file: str = ""
    role: Annotated[str, Meta(max_length=128)] = ""
    seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 86_400.0
    notice: Annotated[str, Meta(max_length=4_096)] = ""
    description: Annotated[str, Meta(min_length=1, max_length=4_096)] = (
        "Give the conversation to a person, if the user asks for one or you cannot help."
    )

    def __post_init__(self) -> None:
        if not self.url:
            return
        parts = urlsplit(self.url)
        if not parts.hostname or parts.username or parts.password:
            raise ValueError("url must be an absolute URL without a user name or password")
        if not _is_safe(parts):
            raise ValueError("url must begin with https://, or be http to a loopback address")
        if not self.role:
            raise ValueError("role must name the role of the people who may answer")
        if bool(self.secret_env) == bool(self.secret_file):
            raise ValueError("secret_env or secret_file must say where the secret is")
        if self.ca_file and parts.scheme != "https":
            raise ValueError("ca_file has no effect: url is not https")


class MemorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What agents with `memory` may remember of a subject.

    Attributes:
        facts: Of a subject, at most.
        characters: Of a fact, at most.
        bytes: Of all facts of a subject, at most; as JSON in UTF-8, with their names.
        ttl_seconds: When a fact expires after it was written last, unless it was written for a
            shorter time.
        read_seconds: How long a turn waits for what is remembered; then it goes on without.
    """

    facts: Annotated[int, Meta(ge=1, le=200)] = 50
    characters: Annotated[int, Meta(ge=1, le=4_000)] = 300
    bytes: Annotated[int, Meta(ge=100, le=131_072)] = 16_384
    ttl_seconds: Annotated[float, Meta(ge=60, le=_CENTURY_SECONDS)] = 365 * 86_400.0
    read_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.0


class McpServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Agents as tools of the Model Context Protocol, at `/mcp`.

    Attributes:
        agents: Names of the agents that are tools; their descriptions are those of the tools.
        url: The address that clients use, such as `https://agents.example.com/mcp`; tokens must be
            requested for it.
    """

    agents: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
    url: str = ""

    def __post_init__(self) -> None:
        if len(set(self.agents)) < len(self.agents):
            raise ValueError("agents must name each agent once")
        if not self.url:
            return
        parts = urlsplit(self.url)
        if not _is_safe(parts):
            raise ValueError("url must begin with https://, or be http to a loopback address")
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("url must be an address without user name, query and fragment")


class ConsoleLoginSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Login to the console with the issuer of `[identity.jwt]`: OpenID Connect with PKCE.

    Attributes:
        client_id: As registered with the issuer; the audience of its ID tokens.
        client_secret_env: Environment variable with the client's secret; empty for a public client.
        url: The address of the console as browsers use it, such as
            `https://agents.example.com/console`; the issuer sends browsers back to it with
            `/callback` appended.
        scopes: Requested besides `openid`.
    """

    client_id: Annotated[str, Meta(min_length=1, max_length=256)]
    client_secret_env: str = ""
    url: str
    scopes: Annotated[tuple[str, ...], Meta(max_length=16)] = ("profile",)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not _is_safe(parts):
            raise ValueError("url must begin with https://, or be http to a loopback address")
        if parts.query or parts.fragment or parts.username or not parts.path.endswith("/console"):
            raise ValueError("url must be an address that ends in /console")
        if not all(
            each.isascii() and each.isprintable() and " " not in each for each in self.scopes
        ):
            raise ValueError("scopes must be of printable ASCII characters without spaces")


class ConsoleSurgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Load from the page: a crowd that a driver beside the server sends to it.

    For trying things out. The turns are like any others: they call models and tools, and cost.

    Attributes:
        people: The most people of a surge.
        token_file: Bearer tokens of the people, one a line, used in rotation; empty for requests
            without a credential.
        simulated: Seed of the `seawall sim-model` behind the server, with which every answer is
            checked; None for any other model.
    """

    people: Annotated[int, Meta(ge=1, le=20_000)] = 1_000
    token_file: str = ""
    simulated: Annotated[int, Meta(ge=0)] | None = None


_TokenRoles = Annotated[tuple[str, ...], Meta(max_length=64)]


class ConsoleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page for people who run the server, at `/console`, and who may do what there.

    The lists name roles of tokens and API keys. Each of the others includes `look`.

    Attributes:
        enabled: None for where requests from this machine need no credential
            (`identity.anonymous`); they may do everything there.
        look: Figures, lists and the times of turns, without their contents.
        read: Contents of turns and sessions, of all tenants; each reading is recorded.
        approve: Decisions about calls that wait, as far as the approval names a role of the caller.
        operate: Effects to reconcile, conversations handed over, load from the page, logins of
            others.
        login: Login with the issuer; None for login with an API key or a token only.
        secret_env: Environment variable with the secret that seals cookies, 32 characters or more.
            Servers behind one address need the same; without it, a login is for one server and
            ends with it.
        session_seconds: How long a login lasts.
        turns: Recent turns that each worker keeps in memory.
        viewers: Pages per worker that show what happens now, at the same time.
        reports: Folder with HTML reports of `seawall plan` and `seawall surge`; empty for none.
        surge: Load from the page, by who may operate; None for none.
    """

    enabled: bool | None = None
    look: _TokenRoles = ()
    read: _TokenRoles = ()
    approve: _TokenRoles = ()
    operate: _TokenRoles = ()
    login: ConsoleLoginSettings | None = None
    secret_env: str = ""
    session_seconds: Annotated[float, Meta(ge=60, le=604_800)] = 28_800.0
    turns: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    viewers: Annotated[int, Meta(ge=1, le=1_000)] = 32
    reports: str = ""
    surge: ConsoleSurgeSettings | None = None


class ResilienceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model endpoint is called.

    The whole call with all its attempts is limited by the agent's `model_seconds`, connecting by
    five seconds.

    Attributes:
        first_token_seconds: Longest wait for the first event of an answer.
        between_tokens_seconds: Longest wait for each further event.
        attempts: Calls to this endpoint for one answer.
        backoff_seconds: Longest pause before the first retry; doubles with each further one.
        backoff_cap_seconds: Longest pause of all.
        retry_budget: Retries as a share of all calls.
        hedge_share: Hedges as a share of all calls: second requests, sent when the first token
            takes longer than `hedge_quantile` of them do; 0 for none. Both requests cost money.
        hedge_quantile: Quantile of the time to the first token after which a hedge is sent.
        resume: Request an answer that broke off again, and continue where it broke off if the new
            answer begins with the very same text; else the turn fails.
        failure_rate: Share of failed calls in the window that opens the circuit breaker.
        window_seconds: Window of the circuit breaker.
        min_calls: Calls in the window below which it stays closed.
        open_seconds: How long it stays open at first.
        probes: Concurrent calls while it is half-open.
        min_concurrency: Minimum of the adaptive concurrency limit.
        permit_wait_seconds: Longest wait for a permit under that limit.
    """

    first_token_seconds: _Seconds = 20.0
    between_tokens_seconds: _Seconds = 20.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    backoff_seconds: _Seconds = 0.25
    backoff_cap_seconds: _Seconds = 5.0
    retry_budget: _Share = 0.1
    hedge_share: _Share = 0.0
    hedge_quantile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    resume: bool = False
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    window_seconds: _Seconds = 10.0
    min_calls: Annotated[int, Meta(ge=1)] = 20
    open_seconds: _Seconds = 5.0
    probes: Annotated[int, Meta(ge=1, le=100)] = 3
    min_concurrency: Annotated[int, Meta(ge=1)] = 8
    permit_wait_seconds: _Seconds = 2.0


BILLION = 1_000_000_000
"""Amounts of money are whole billionths of the currency, so that sums are exact."""

_Price = Annotated[float, Meta(ge=0, le=1_000_000)]
_Tokens = Annotated[int, Meta(ge=0, le=10**15)]
_Money = Annotated[float, Meta(ge=0, le=10**9)]
_PerMinute = Annotated[int, Meta(ge=0, le=10**11)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a model per million tokens.

    Attributes:
        prompt: Of prompt tokens.
        completion: Of completion tokens.
        cached_prompt: Of prompt tokens read from the provider's cache; None: as `prompt`.
        cache_write: Of prompt tokens written to the provider's cache; None: as `prompt`.
        currency: A label, the same for all models.
    """

    prompt: _Price
    completion: _Price
    cached_prompt: _Price | None = None
    cache_write: _Price | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,8}$")] = "USD"


class QuotaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of an account at a provider, shared by the models that name it; 0 for no limit.

    Attributes:
        requests_per_minute: Requests of all processes together.
        tokens_per_minute: Prompt and completion tokens of all processes together.
        input_tokens_per_minute: Prompt tokens, where the provider limits them separately.
        output_tokens_per_minute: Completion tokens, where the provider limits them separately.
        reserve: What the provider deducts when it admits a call. "input+max_tokens": the prompt
            and the call's limit of completion tokens; "larger": the larger of both; "usage": what
            is used in the end, which is estimated; "auto": the rule of the models' kind.
        returned: What the provider returns at the end of a call: "unused", "nothing", or "auto":
            nothing of the larger of both, else what was not used.
        burndown: As how many tokens the provider counts a completion token in the end.
        refill: "continuous", or "window": the whole limit at the beginning of each window.
        window_seconds: How many seconds of the limit can be used at once; the length of windows.
        queued: Calls that may wait in one process.
        pods: Processes that share the account; used while the shared counter cannot be reached
            and the number is not known from it.
    """

    requests_per_minute: _PerMinute = 0
    tokens_per_minute: _PerMinute = 0
    input_tokens_per_minute: _PerMinute = 0
    output_tokens_per_minute: _PerMinute = 0
    reserve: Literal["auto", "input+max_tokens", "larger", "usage"] = "auto"
    returned: Literal["auto", "unused", "nothing"] = "auto"
    burndown: Annotated[float, Meta(ge=1, le=100)] = 1.0
    refill: Literal["continuous", "window"] = "continuous"
    window_seconds: Annotated[float, Meta(ge=0.1, le=60.0)] = 60.0
    queued: Annotated[int, Meta(ge=0, le=1_000_000)] = 6_000
    pods: Annotated[int, Meta(ge=1, le=100_000)] = 1

    @property
    def has_limits(self) -> bool:
        """Whether anything is limited."""
        return any(self._limits)

    @property
    def burst_seconds(self) -> float:
        """`window_seconds`; a minute, where in a shorter window there would be less than one."""
        few = any(each * self.window_seconds < 60 for each in self._limits if each)
        return 60.0 if self.refill == "window" and few else self.window_seconds

    @property
    def _limits(self) -> tuple[int, ...]:
        return (
            self.requests_per_minute,
            self.tokens_per_minute,
            self.input_tokens_per_minute,
            self.output_tokens_per_minute,
        )


class BudgetLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one tenant per calendar day or month, UTC; None for no limit."""

    tokens_per_day: _Tokens | None = None
    tokens_per_month: _Tokens | None = None
    money_per_day: _Money | None = None
    money_per_month: _Money | None = None


class BudgetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets by tenant. A tenant with a table of its own inherits none of the default."""

    default: BudgetLimits = BudgetLimits()
    tenants: dict[str, BudgetLimits] = field(default_factory=dict)

    def limits_for(self, tenant: str) -> BudgetLimits:
        """Return the limits of a tenant."""
        return self.tenants.get(tenant, self.default)

    @property
    def has_limits(self) -> bool:
        """Whether any tenant has a limit."""
        return any(each != BudgetLimits() for each in (self.default, *self.tenants.values()))


class _Priced(Protocol):
    @property
    def price(self) -> PriceSettings | None: ...


def budget_faults(
    budgets: BudgetSettings, models: Mapping[str, _Priced]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys that contradict each other, and why."""
    first: str | None = None
    for name, model in models.items():
        if model.price is None:
            continue
        first = first or model.price.currency
        if model.price.currency != first:
            yield (
                ("models", name, "price", "currency"),
                f"must be {first}, as that of the other models: costs are added up",
            )
    limits = (budgets.default, *budgets.tenants.values())
    if any(each.money_per_day is not None or each.money_per_month is not None for each in limits):
        for name, model in models.items():
            if model.price is None:
                yield ("models", name, "price"), "must be set, because a budget limits money"


def cost_of(usage: Usage, price: PriceSettings) -> int:
    """Return the cost of calls, in billionths of the currency, rounded to the nearest."""
    cached, written = usage.cached_prompt_tokens, usage.cache_write_tokens
    read = max(0, usage.prompt_tokens - cached - written)
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    written_price = price.prompt if price.cache_write is None else price.cache_write
    return round(
        BILLION
        // 1_000_000
        * (
            read * price.prompt
            + cached * cached_price
            + written * written_price
            + usage.completion_tokens * price.completion
        )
    )


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one model endpoint. Not every key applies to every kind: see `invalid_setting`.

    Attributes:
        kind: The API that the endpoint speaks.
        base_url: Empty for the provider's own.
        model: The provider's name of the model.
        region: AWS region; empty for that of the environment.
        api_key_env: Environment variable with the secret.
        api_key_file: File with the secret.
        ca_file: Authorities that are trusted for `base_url`; empty for those of the system.
        length_field: The name under which the server accepts the limit on completion tokens.
        prompt_cache: None for the default of the kind.
        thinking: Empty for the model's default.
        output_schema: Send the output schema in the provider's field, or in the instructions.
        vision: Whether the model takes images; else it reads of which kind and size they are.
        documents: Whether the model takes PDFs; likewise.
        max_connections: Open at once at most, in one process.
        warm_connections: Connections opened at start.
        quota: Name of the quota of its account; empty for none.
        price: None for none.
        path: File with the weights; empty for those of the installed package.
        context_tokens: Context of one generation.
        generations: At once; others wait.
        threads: 0 for one per processor.
        fallbacks: Models that are called when it fails, in this order.
        resilience: Timeouts, retries, circuit breaker.
    """

    kind: Literal["openai", "responses", "anthropic", "bedrock", "local"] = "openai"
    base_url: str = ""
    model: str = ""
    region: str = ""
    api_key_env: str = ""
    api_key_file: str = ""
    ca_file: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    prompt_cache: Literal["off", "prefix", "conversation"] | None = None
    thinking: Literal["", "adaptive", "between_tools", "disabled"] = ""
    output_schema: Literal["provider", "instructions"] = "provider"
    vision: bool = False
    documents: bool = False
    max_connections: int = 8_192
    warm_connections: Annotated[int, Meta(ge=0, le=1_024)] = 2
    quota: str = ""
    price: PriceSettings | None = None
    path: str = ""
    context_tokens: Annotated[int, Meta(ge=256, le=1 << 20)] = 4_096
    generations: Annotated[int, Meta(ge=1, le=64)] = 2
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    fallbacks: tuple[str, ...] = ()
    resilience: ResilienceSettings = ResilienceSettings()


def model_faults(models: Mapping[str, ModelSettings]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys that contradict each other, and why."""
    for name, model in models.items():
        if name in model.fallbacks:
            yield ("models", name, "fallbacks"), "a model cannot be its own fallback"


_HTTP = frozenset({"openai", "responses", "anthropic", "bedrock"})
_LOCAL = frozenset({"local"})
_KINDS_OF_KEY = {
    "base_url": _HTTP,
    "model": _HTTP,
    "api_key_env": _HTTP,
    "api_key_file": _HTTP,
    "ca_file": _HTTP,
    "prompt_cache": _HTTP,
    "max_connections": _HTTP,
    "warm_connections": _HTTP,
    "vision": _HTTP,
    "documents": _HTTP,
    "length_field": frozenset({"openai"}),
    "thinking": frozenset({"anthropic"}),
    "region": frozenset({"bedrock"}),
    "path": _LOCAL,
    "context_tokens": _LOCAL,
    "generations": _LOCAL,
    "threads": _LOCAL,
}
_REQUIRED = {
    "openai": ("base_url", "model"),
    "responses": ("model",),
    "anthropic": ("model",),
    "bedrock": ("model",),
    "local": (),
}


def invalid_setting(settings: ModelSettings, given: Collection[str]) -> tuple[str, str] | None:
    """Return the first key that is invalid for the kind, and why; None if all are valid.

    Args:
        settings: Of the model.
        given: The keys that the configuration contains.
    """
    for key in given:
        kinds = _KINDS_OF_KEY.get(key)
        if kinds is not None and settings.kind not in kinds:
            listed = ", ".join(sorted(kinds))
            return key, f'does not apply to a model of kind "{settings.kind}", only to: {listed}'
    for key in _REQUIRED[settings.kind]:
        if not getattr(settings, key):
            return key, f'must be given for a model of kind "{settings.kind}"'
    if settings.base_url and (fault := _fault_of_url(settings.base_url)):
        return "base_url", fault
    if settings.api_key_env and settings.api_key_file:
        return "api_key_file", "api_key_env is set already"
    if settings.ca_file and not settings.base_url.startswith("https:"):
        return "ca_file", "has no effect: base_url is not https"
    return None


def _fault_of_url(url: str) -> str:
    from seawall.transport.http_client import Endpoint  # noqa: PLC0415 - only where one is given

    try:
        Endpoint.parse(url)
    except ValueError as error:
        return str(error)
    return ""


class OutputSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON Schema of an agent's answers, inline or in a file.

    Attributes:
        name: Name of the schema for models.
        schema: The schema, as a table.
        schema_file: A file that has it, instead.
    """

    name: str = "answer"
    schema: dict[str, Any] | None = None
    schema_file: str = ""


Priority = Literal["high", "normal", "low"]


class TenantSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one tenant.

    Attributes:
        weight: Its share of the slots, relative to other tenants of the same priority.
        priority: Of its turns; background turns are one class lower.
    """

    weight: Annotated[float, Meta(gt=0, le=1_000)] = 1.0
    priority: Priority = "normal"


class AdmissionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one process.

    Attributes:
        in_flight: The most turns in flight.
        min_in_flight: The lowest value that the adaptive limit may take.
        loop_target_seconds: Target duration of a pass of the event loop; only as many turns start
            at a time as keep to it.
        lag_seconds: Lag of the event loop from which, after some seconds, the limit shrinks; 0 for
            never.
        memory_mb: MiB that the process may use before the limit shrinks; 0 for its share of what
            its cgroup, or the machine, allows.
        queued: Turns that may wait for a slot.
        wait_seconds: How long a turn may wait.
        overload_wait_seconds: How long it may wait once turns have been waiting without a break
            for half of `wait_seconds`.
        tenants: Settings of single tenants, by name.
    """

    in_flight: Annotated[int, Meta(ge=1)] = 6_000
    min_in_flight: Annotated[int, Meta(ge=1)] = 32
    loop_target_seconds: Annotated[float, Meta(gt=0)] = 0.005
    lag_seconds: Annotated[float, Meta(ge=0)] = 0.25
    memory_mb: Annotated[int, Meta(ge=0)] = 0
    queued: Annotated[int, Meta(ge=0)] = 2_000
    wait_seconds: Annotated[float, Meta(ge=0)] = 10.0
    overload_wait_seconds: Annotated[float, Meta(ge=0)] = 1.0
    tenants: dict[str, TenantSettings] = {}


class AnswerCacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Reuse of an agent's answers to first questions.

    Attributes:
        seconds: How long an answer may be reused.
        scope: For the same subject only, or for all of a tenant; the latter only if every tool is
            shared.
    """

    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    scope: Literal["subject", "tenant"] = "subject"


class CacheLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one process: for answers, and the same again for tool results."""

    entries: Annotated[int, Meta(ge=1)] = 10_000
    bytes: Annotated[int, Meta(ge=1)] = 64 << 20


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where traces and metrics are exported to, and how many of them.

    Attributes:
        endpoint: An OTLP/HTTP receiver, without `/v1/traces`; if empty, that of
            OTEL_EXPORTER_OTLP_ENDPOINT, and without one nothing is exported. Its headers, which
            may be secret, are read from OTEL_EXPORTER_OTLP_HEADERS only.
        ca_file: Authorities that are trusted for the receiver; if empty, those of
            OTEL_EXPORTER_OTLP_CERTIFICATE, or those of the system.
        service: If empty, OTEL_SERVICE_NAME, or "seawall".
        sample: Share of turns that are traced, of those whose caller has not decided it.
        follow: Whether the caller's trace is continued and its decision kept; otherwise each turn
            begins a trace of its own.
        content: Whether prompts, answers, and arguments and results of tools are exported.
        queued: Spans that may be queued; more are dropped, and counted.
        export_seconds: Between two exports of spans.
        metrics_seconds: Between two exports of metrics.
    """

    endpoint: str = ""
    ca_file: str = ""
    service: str = ""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    follow: bool = True
    content: bool = False
    queued: Annotated[int, Meta(ge=64, le=1 << 20)] = 16_384
    export_seconds: Annotated[float, Meta(ge=0.01, le=600)] = 2.0
    metrics_seconds: Annotated[float, Meta(ge=0.01, le=3_600)] = 30.0


class SessionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where sessions are stored, for how long, and how much history a model is shown.

    Attributes:
        store: "sqlite", one file for the processes of one machine; or "dynamodb", one table for all
            servers.
        path: The SQLite file.
        table: The DynamoDB table.
        region: Of DynamoDB; empty for the environment's.
        endpoint: Of DynamoDB; empty for the region's.
        ca_file: Authorities that are trusted for `endpoint`; empty for those of the system.
        create_table: Create the table if there is none.
        connections: Open to DynamoDB at most, in one process.
        history_turns: Earlier turns included in a prompt, at most.
        history_tokens: Their tokens, at most, as estimated.
        ttl_seconds: A session that was not used for so long expires.
        when_busy: Whether a turn waits for another turn of its session, or is refused at once.
        busy_seconds: How long it waits at most.
        lease_seconds: How long a turn's lease of its session lasts without renewal; it is renewed
            every third of that. 0: no leases; of two concurrent turns, the second to finish is
            refused, and tools must not change anything.
        background_seconds: An interrupted background turn is run again until so long after it was
            accepted.
        background_attempts: And so many times at most.
        orphan_scan_seconds: How often a process scans for such turns; 0: never. Needs a lease.
    """

    store: Literal["sqlite", "dynamodb"] = "sqlite"
    path: Annotated[str, Meta(min_length=1)] = "seawall.db"
    table: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}$")] = "seawall-sessions"
    region: str = ""
    endpoint: str = ""
    ca_file: str = ""
    create_table: bool = False
    connections: Annotated[int, Meta(ge=1, le=4_096)] = 128
    history_turns: Annotated[int, Meta(ge=0, le=1_000)] = 20
    history_tokens: Annotated[int, Meta(ge=0)] = 6_000
    ttl_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 30 * 86_400.0
    when_busy: Literal["wait", "refuse"] = "wait"
    busy_seconds: Annotated[float, Meta(ge=0, le=_CENTURY_SECONDS)] = 15.0
    lease_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 20.0
    background_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 3_600.0
    background_attempts: Annotated[int, Meta(ge=1)] = 5
    orphan_scan_seconds: Annotated[float, Meta(ge=0, le=_CENTURY_SECONDS)] = 5.0

    def __post_init__(self) -> None:
        """Check the authorities."""
        if self.ca_file and not self.endpoint.startswith("https:"):
            raise ValueError("ca_file has no effect: endpoint is not https")


class BlobSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where files of customers are stored, and how much of them.

    Attributes:
        store: "files", a folder for the processes of one machine; or "s3", a bucket for all
            servers.
        path: The folder.
        bucket: The bucket.
        prefix: Beginning of all keys in it.
        region: Of the bucket; empty for the environment's.
        endpoint: Of S3; empty for the region's.
        ca_file: Authorities that are trusted for `endpoint`; empty for those of the system.
        path_style: Whether the bucket is in the path of requests, not in the name of the host.
        connections: Open to S3 at most, in one process.
        subject_bytes: Stored of one subject, at most.
        tenant_bytes: Stored of one tenant, at most; of "files" only.
        total_bytes: Stored of all, at most; of "files" only.
        upload_seconds: How long an upload is kept that no turn has used.
        sweep_seconds: How often a process deletes what has expired; 0: never.
        seconds: Time limit of one call.
    """

    store: Literal["files", "s3"] = "files"
    path: Annotated[str, Meta(min_length=1)] = "seawall-files"
    bucket: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?\Z")] = ""
    prefix: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_.-]{1,64}/){0,4}\Z")] = ""
    region: str = ""
    endpoint: str = ""
    ca_file: str = ""
    path_style: bool = False
    connections: Annotated[int, Meta(ge=1, le=1_024)] = 32
    subject_bytes: Annotated[int, Meta(ge=1)] = 200 << 20
    tenant_bytes: Annotated[int, Meta(ge=1)] = 5 << 30
    total_bytes: Annotated[int, Meta(ge=1)] = 20 << 30
    upload_seconds: Annotated[float, Meta(ge=60, le=30 * 86_400)] = 3_600.0
    sweep_seconds: Annotated[float, Meta(ge=0, le=_CENTURY_SECONDS)] = 900.0
    seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.store == "s3" and not self.bucket:
            raise ValueError('bucket must be set with store = "s3"')
        if self.ca_file and not self.endpoint.startswith("https:"):
            raise ValueError("ca_file has no effect: endpoint is not https")


class AttachmentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which files customers may send, and what models are shown of them.

    Attributes:
        max_bytes: Of one file, as it is sent.
        per_message: Files of one message.
        image_pixels: Of one image, as it is sent.
        image_side: Longer images are scaled down to this, in pixels.
        pdf_pages: Of one PDF.
        text_bytes: Of one text file.
        shown_images: Images in one request to a model.
        shown_documents: PDFs and text files in one request to a model.
        shown_bytes: Bytes of all of them together.
        shown_tokens: About how many tokens a model reads for all of them together.
        decode_seconds: How long checking one file may take.
        decode_memory_mb: MiB of address space of the process that checks files.
        in_flight_bytes: Bytes of files in memory at once, of all requests of a process.
    """

    max_bytes: Annotated[int, Meta(ge=1_024, le=64 << 20)] = 10 << 20
    per_message: Annotated[int, Meta(ge=1, le=16)] = 4
    image_pixels: Annotated[int, Meta(ge=10_000, le=200_000_000)] = 50_000_000
    image_side: Annotated[int, Meta(ge=64, le=8_000)] = 1_568
    pdf_pages: Annotated[int, Meta(ge=1, le=1_000)] = 100
    text_bytes: Annotated[int, Meta(ge=1_024, le=4 << 20)] = 200_000
    shown_images: Annotated[int, Meta(ge=1, le=20)] = 8
    shown_documents: Annotated[int, Meta(ge=1, le=5)] = 4
    shown_bytes: Annotated[int, Meta(ge=1_024, le=64 << 20)] = 16 << 20
    shown_tokens: Annotated[int, Meta(ge=1_000, le=10_000_000)] = 100_000
    decode_seconds: Annotated[float, Meta(gt=0, le=120)] = 10.0
    decode_memory_mb: Annotated[int, Meta(ge=256, le=8_192)] = 768
    in_flight_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 20

    def __post_init__(self) -> None:
        """Check that the files of one message can be shown together, and held in memory."""
        if self.per_message > min(self.shown_images, self.shown_documents):
            raise ValueError("per_message must be at most shown_images and shown_documents")
        if self.in_flight_bytes < max(self.shown_bytes, 2 * self.max_bytes):
            raise ValueError("in_flight_bytes must be at least shown_bytes and twice max_bytes")


_StageSeconds = Annotated[float, Meta(gt=0, le=86_400)]


class StageLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The time limits of stages, in seconds. The turn's own deadline also applies.

    Attributes:
        turn: From admission to the commit.
        authenticate: Waiting for the identity provider.
        session: One call of the session store.
        intent: Detecting the intent.
        commit: The durable write.
    """

    turn: _StageSeconds = 60.0
    authenticate: _StageSeconds = 5.0
    session: _StageSeconds = 5.0
    intent: _StageSeconds = 5.0
    commit: _StageSeconds = 10.0
