"""The pipeline with its own code, agents and rules, but no effect on anything outside.

Nobody's store, nobody's model: sessions are in memory, models answer from a script and call no
tool, everybody is let in. What is run here before the first customer comes, he need not wait for:
imports, compiled patterns, specialised code.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from seawall.admission.gate import Gate
from seawall.budgets.spending import Spending
from seawall.identity.port import Credential
from seawall.models.scripted import ScriptedModel
from seawall.pipeline.pipeline import Ports
from seawall.sessions.sqlite import SqliteStore
from seawall.turn import Principal

__all__ = ["rehearsal_ports"]

_NOBODY = Principal("seawall", "rehearsal")
_ANSWER = "This is a rehearsal: " + "nobody asks, nobody hears, nothing is kept. " * 4


class _Everybody:
    """Implements `Authenticator`: whoever asks, it is only us."""

    def claimed(self, _: Credential) -> Principal:
        return _NOBODY

    def known(self, _: Credential) -> Principal:
        return _NOBODY

    async def authenticate(self, _: Credential) -> Principal:
        return _NOBODY

    async def warm(self) -> None:
        return


@asynccontextmanager
async def rehearsal_ports(ports: Ports) -> AsyncGenerator[Ports, None]:
    """The ports to rehearse on, in place of these."""
    store = SqliteStore(
        f"file:seawall-rehearsal-{os.urandom(8).hex()}?mode=memory&cache=shared", uri=True
    )
    await store.open()
    try:
        model = ScriptedModel(lambda _: _ANSWER)
        yield msgspec.structs.replace(
            ports,
            authenticator=_Everybody(),
            store=store,
            detector=ports.detector.locally(),
            agents={
                name: msgspec.structs.replace(agent, model=model)
                for name, agent in ports.agents.items()
            },
            answers=None,  # it would ask the real agents
            gate=Gate(ports.gate.settings),
            observe=lambda _: None,
            spending=Spending,
            tracer=None,
        )
    finally:
        await store.close()
