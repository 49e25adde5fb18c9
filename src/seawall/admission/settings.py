"""Settings of admission control."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["AdmissionSettings", "Priority", "TenantSettings"]

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
