"""What can be configured about admission."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["AdmissionSettings", "Priority", "TenantSettings"]

Priority = Literal["high", "normal", "low"]


class TenantSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What one tenant gets when there is not enough for all.

    weight: its share of the places, beside other tenants of the same priority.
    priority: of its turns; those in the background are one step lower.
    """

    weight: Annotated[float, Meta(gt=0, le=1_000)] = 1.0
    priority: Priority = "normal"


class AdmissionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one process.

    in_flight: the most turns at once; min_in_flight: the fewest that the limit may shrink to.
    loop_target_seconds: how long the event loop should take to come round. Only as many turns begin
    as let it; whoever comes meanwhile waits, or is refused, within that time.
    lag_seconds: how late the event loop may be, for a while, before the limit shrinks; 0: it
    never shrinks for that.
    memory_mb: what the process may use before the limit shrinks, in MiB; 0 for its share of what
    its cgroup, or the machine, allows.
    queued: turns that may wait for a place. wait_seconds: the longest that one may wait.
    overload_wait_seconds: the longest once turns have been waiting without a break for half of
    `wait_seconds`.
    tenants: what single tenants get, by name.
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
