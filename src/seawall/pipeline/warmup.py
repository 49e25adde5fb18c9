"""Ports for warm-up turns: the pipeline with its own code and agents, without outside effects.

Sessions are in memory, models answer from a script and call no tool, every caller is admitted. What
these turns load before the first client's turn does not delay it: imports, compiled patterns,
specialised bytecode.
"""

import msgspec

from seawall.admission.gate import AdmissionGate
from seawall.budgets import Spending
from seawall.identity import Credential
from seawall.models.scripted import ScriptedModel
from seawall.pipeline.context import Ports
from seawall.storage.port import SessionStore
from seawall.turn import Principal

__all__ = ["warmup_ports"]

_PRINCIPAL = Principal("seawall", "warm-up")
_ANSWER = "This is the answer of a warm-up turn; no client receives it and nothing is stored. " * 3


class _AllowAll:
    """Implements `Authenticator`."""

    def unverified_principal(self, _: Credential) -> Principal:
        return _PRINCIPAL

    def authenticate_now(self, _: Credential) -> Principal:
        return _PRINCIPAL

    async def authenticate(self, _: Credential) -> Principal:
        return _PRINCIPAL

    async def warm(self) -> None:
        return


def warmup_ports(ports: Ports, store: SessionStore) -> Ports:
    """The ports for warm-up turns.

    Args:
        ports: The ports of the real turns.
        store: An empty store, open, that is thrown away afterwards.
    """
    model = ScriptedModel(lambda _: _ANSWER)
    agents = ports.agents.items()
    return msgspec.structs.replace(
        ports,
        authenticator=_AllowAll(),
        store=store,
        detector=ports.detector.local_only(),
        agents={name: msgspec.structs.replace(agent, model=model) for name, agent in agents},
        answers=None,  # it would call the real agents
        gate=AdmissionGate(ports.gate.settings),
        observe=lambda _: None,
        spending=Spending,
        tracer=None,
        compactions=None,
        memory=None,
    )
