"""Reader of plan files, as `seawall plan --json` writes them; reads what sizes a deployment."""

from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    SCHEMA,
    Configuration,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    Percentiles,
    PlatformName,
    Traffic,
)

__all__ = ["PlannedPlatform", "PlannedService", "read_plan"]

_OLDER = "seawall.plan/1"  # what sizes a deployment is the same there


class PlannedPlatform(Struct, frozen=True):
    """One platform with its sizes; see `seawall.plan.decision.answer.PlatformAnswer`."""

    name: PlatformName
    title: str
    configuration: Configuration
    monthly_cost: float
    met: bool
    latency: Percentiles


class PlannedService(Struct, frozen=True):
    """A plan; other fields of the file are ignored."""

    schema: str
    choice: PlatformName
    region: str
    currency: str
    traffic: Traffic
    platforms: dict[str, PlannedPlatform]

    def eks(self) -> PlannedPlatform:
        """Return the platform EKS.

        Raises:
            ConfigError: The plan does not have it.
        """
        found = self.platforms.get("eks")
        if found is None or not isinstance(found.configuration, EksConfiguration):
            known = ", ".join(self.platforms) or "none"
            raise ConfigError(f"the plan has no platform eks; it has: {known}")
        return found

    def on_lambda(self, name: str = "") -> PlannedPlatform:
        """Return a function: by name, or the plan's choice, or the cheapest that is good enough.

        Raises:
            ConfigError: The plan has no function of that name, or none at all.
        """
        functions = [
            each
            for each in self.platforms.values()
            if isinstance(each.configuration, LambdaConfiguration | ManagedConfiguration)
        ]
        known = ", ".join(each.name for each in functions) or "none"
        wanted = name or self.choice
        for each in functions:
            if each.name == wanted:
                return each
        if name in self.platforms:
            raise ConfigError(f'"{name}" cannot be written: it is no function; known: {known}')
        if name:
            raise ConfigError(f'the plan has no function "{name}"; known: {known}')
        if not functions:
            raise ConfigError("the plan has no function")
        return min(functions, key=lambda each: (not each.met, each.monthly_cost))

    def unwritten_choice(self, written: PlannedPlatform) -> tuple[str, ...]:
        """Return a note if the plan's choice is a platform for which nothing can be written."""
        best = self.platforms.get(self.choice)
        if best is None or best.name == "eks":
            return ()
        if isinstance(best.configuration, LambdaConfiguration | ManagedConfiguration):
            return ()
        words = f"The plan's choice is {best.title}, for which ship writes nothing"
        return (f"{words}: this is {written.title}.",)


def read_plan(path: Path) -> PlannedService:
    """Read a plan file.

    Raises:
        ConfigError: It cannot be read, or was not written by `seawall plan --json`.
    """
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=PlannedService)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: is not a plan: {error}; create one with: seawall plan --json > {path.name}"
        ) from error
    if plan.schema not in (_OLDER, SCHEMA):
        raise ConfigError(f'{path}: has the schema "{plan.schema}"; this version reads "{SCHEMA}"')
    return plan
