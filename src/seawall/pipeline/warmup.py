"""The pipeline with its own code, agents and rules, but no effect on anything outside.

Nobody's store, nobody's model: sessions are in memory, models answer from a script and call no
tool, everybody is let in. What is run here before the first customer comes, he need not wait for:
imports, compiled patterns, specialised code.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from seawall.admission.gate import AdmissionGate
from seawall.budgets.spending import Spending
from seawall.identity.port import Credential
from seawall.models.scripted import ScriptedModel
from seawall.pipeline.context import Ports
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal

__all__ = ["warmup_ports"]

_PRINCIPAL = Principal("seawall", "rehearsal")
_ANSWER = "This is a rehearsal: " + "nobody asks, nobody hears, nothing is kept. " * 4


class _AllowAll:
    """Implements `Authenticator`: whoever asks, it is only us."""

    def unverified_principal(self, _: Credential) -> Principal:
        return _PRINCIPAL

    def authenticate_now(self, _: Credential) -> Principal:
        return _PRINCIPAL

    async def authenticate(self, _: Credential) -> Principal:
        return _PRINCIPAL

    async def warm(self) -> None:
        return


@asynccontextmanager
async def warmup_ports(ports: Ports) -> AsyncGenerator[Ports, None]:
    """The ports to warm_up on, in place of these."""
    store = SqliteStore(
        f"file:seawall-rehearsal-{os.urandom(8).hex()}?mode=memory&cache=shared", uri=True
    )
    await store.open()
    try:
        model = ScriptedModel(lambda _: _ANSWER)
        yield msgspec.structs.replace(
            ports,
            authenticator=_AllowAll(),
            store=store,
            detector=ports.detector.local_only(),
            agents={
                name: msgspec.structs.replace(agent, model=model)
                for name, agent in ports.agents.items()
            },
            answers=None,  # it would ask the real agents
            gate=AdmissionGate(ports.gate.settings),
            observe=lambda _: None,
            spending=Spending,
            tracer=None,
        )
    finally:
        await store.close()
