"""The simulated model: a server that speaks OpenAI's wire protocol with set service times.

For load and for tests; it injects faults and limits on request: docs/simulated-model.md.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from seawall.lab.sim_model.connection import Connection, SimStats, SteppedReply
from seawall.lab.sim_model.faults import Error, FaultPlan, FaultScript, Throttle, parse_faults
from seawall.lab.sim_model.limits import Limits, SimLimits
from seawall.lab.sim_model.reply import SimTimes, plan_reply
from seawall.lab.sim_model.script import Script, tool_calls
from seawall.lab.sim_model.steps import reply_steps
from seawall.lab.sim_model.wire import (
    ChatRequest,
    Refusal,
    Reply,
    error_refusal,
    limit_refusal,
    quota_headers,
    stream_reply,
    text_of,
    throttle_refusal,
    whole_reply,
)
from seawall.timers import TimingWheel
from seawall.turn import ToolCall

__all__ = [
    "Listeners",
    "SimModel",
]

_LISTENERS = 256
_BACKLOG = 4_096


class Listeners:
    """Listening sockets on one port, closed and opened again for outages.

    There are several because an event loop accepts one connection per socket and iteration. Another
    socket stays bound without listening, so that the port is not taken during an outage.
    """

    def __init__(self, host: str, port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._host = host
        self._protocol = protocol
        self._servers: list[asyncio.Server] = []
        self._reserving_socket = socket.socket()
        self._reserving_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserving_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._reserving_socket.bind((host, port))
        except OSError:
            self._reserving_socket.close()
            raise
        self.port = int(self._reserving_socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._reserving_socket.close()

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers)

    async def open(self) -> None:
        """Start to accept connections."""
        loop = asyncio.get_running_loop()
        for _ in range(_LISTENERS):
            listener = socket.create_server(
                (self._host, self.port), reuse_port=True, backlog=_BACKLOG
            )
            server = await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Refuse new connections; open ones stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()


_SCRIPT_INTERVAL = 0.01


class SimModel:
    """A simulated model; `serve` makes it reachable."""

    def __init__(
        self,
        *,
        seed: int,
        times: SimTimes,
        script: Script,
        faults: FaultScript | None = None,
        limits: SimLimits | None = None,
        models: Sequence[str] = ("simulated",),
    ) -> None:
        """Create a model.

        Args:
            seed: Of replies and faults.
            times: Service times.
            script: Replies and tool calls that are fixed.
            faults: Fault script; None for none.
            limits: Limits of each model name; None for none.
            models: Names to list; requests with other names are answered as well.
        """
        self.stats = SimStats()
        self.wheel = TimingWheel()
        self.connections: set[Connection] = set()
        self._seed = seed
        self._times = times
        self._script = script
        self._models = tuple(models)
        self._plan = FaultPlan(faults or FaultScript(), seed=seed)
        self._limits = limits or SimLimits()
        self._limited: dict[str, Limits] = {}
        self._began = 0.0
        self._changed = asyncio.Event()
        self._refusing = False

    async def serve(self, host: str, port: int, announce: Callable[[int], None]) -> None:
        """Serve until cancelled. The fault script starts now; `announce` gets the port."""
        with Listeners(host, port, lambda: Connection(self)) as listeners:
            self._began = self._now()
            await self._listen(listeners)
            announce(listeners.port)
            while True:
                change = self._plan.next_change(self._elapsed())
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(None if change is None else self._began + change):
                        await self._changed.wait()
                self._changed.clear()
                await self._listen(listeners)

    def answer(self, request: ChatRequest) -> Reply | SteppedReply | Refusal:
        """Decide the response to a request: quotas first, then faults, then the reply."""
        stats, name = self.stats, request.model
        stats.requests += 1
        stats.models[name] = stats.models.get(name, 0) + 1
        if self._plan.idle and self._limits.none:
            return self.reply(request)
        limits, charge, headers = None, None, b""
        if not self._limits.none:
            limits = self._limits_of(name)
            charge = limits.charge(_prompt_tokens(request), request.limit)
            refused = limits.admit(charge.tokens, self._now())
            headers = quota_headers(limits.quotas(self._now()))
            if refused is not None:
                return self._refuse(refused.limit, limit_refusal(name, refused), headers)
        rule = None
        if not self._plan.idle:
            rule = self._plan.decide(name, _last_user_message(request)[1], now=self._elapsed())
        if rule is None and limits is None:
            return self.reply(request)
        if isinstance(rule, Throttle | Error):
            if limits is not None and charge is not None:
                limits.settle(charge, 0, self._now())
            if isinstance(rule, Error):
                return self._refuse("error", error_refusal(rule), headers)
            return self._refuse("throttle", throttle_refusal(name, rule.retry_after), headers)
        if rule is not None:
            stats.count_fault(str(rule.__struct_config__.tag))
        reply = self.reply(request)
        return SteppedReply(reply_steps(reply, rule, headers), limits, charge, reply.tokens)

    def _limits_of(self, name: str) -> Limits:
        found = self._limited.get(name)
        if found is None:
            found = self._limited[name] = Limits(self._limits)
        return found

    def reply(self, request: ChatRequest) -> Reply:
        """The reply without faults."""
        last, message = _last_user_message(request)
        number = sum(each.role == "assistant" for each in request.messages[last + 1 :])
        step = self._script.step(message, number)
        calls: tuple[ToolCall, ...] = ()
        if step is None:
            plan = plan_reply(self._seed, message, self._times)
            pieces, first, interval = plan.chunks, plan.first_token, plan.interval
        else:
            words = step.text.split(" ") if step.text else []
            pieces = tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))
            first = interval = _SCRIPT_INTERVAL
            calls = tool_calls(step, number)
        prompt = _prompt_tokens(request)
        written = len(pieces) + 8 * len(calls)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        head = {"id": f"chatcmpl-sim-{self.stats.started}", "created": 0, "model": request.model}
        if not request.stream:
            reply = whole_reply(head, pieces, calls, usage, first + interval * len(pieces))
        else:
            options = request.stream_options
            shown = usage if options is not None and options.include_usage else None
            reply = stream_reply(head, pieces, calls, shown, (first, interval))
        reply.tokens = written
        return reply

    def listed(self) -> dict[str, object]:
        """The models, as `/v1/models` lists them."""
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "sim"}
            for name in self._models
        ]
        return {"object": "list", "data": data}

    def replace_faults(self, script: bytes) -> dict[str, int]:
        """Replace the fault script (JSON); its clock and attempts are reset.

        Raises:
            ConfigError: The script is invalid; the current one stays.
        """
        found = parse_faults(script)
        self._plan = FaultPlan(found, seed=self._seed)
        self._began = self._now()
        self._changed.set()
        return {"rules": len(found.rules)}

    async def _listen(self, listeners: Listeners) -> None:
        """Open or close the listeners as the fault script says."""
        refusing = self._plan.refuses(self._elapsed())
        if refusing and not self._refusing:
            self.stats.count_fault("refuse")
            listeners.close()
            for each in tuple(self.connections):
                each.interrupt()
        elif not refusing and not listeners.listening:
            await listeners.open()
        self._refusing = refusing

    def _refuse(self, kind: str, refusal: Refusal, headers: bytes) -> Refusal:
        self.stats.refused += 1
        self.stats.count_fault(kind)
        return Refusal(refusal.status, refusal.body, refusal.headers + headers)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _elapsed(self) -> float:
        return self._now() - self._began


def _last_user_message(request: ChatRequest) -> tuple[int, str]:
    """Index and text of the last user message; -1 and "" if there is none."""
    for index in range(len(request.messages) - 1, -1, -1):
        if request.messages[index].role == "user":
            return index, text_of(request.messages[index])
    return -1, ""


def _prompt_tokens(request: ChatRequest) -> int:
    """An estimate: four characters a token."""
    return sum(len(text_of(each)) for each in request.messages) // 4
