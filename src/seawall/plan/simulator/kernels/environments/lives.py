"""The life cycle of environments: started within the limits, idle, reclaimed."""

import math

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.environments import arrays as k
from seawall.plan.simulator.kernels.environments.arrays import (
    EnvironmentParams,
    EnvironmentState,
    EnvironmentStats,
)
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM, bin_index, pop, push

__all__ = [
    "advance",
    "end_environment",
    "finish",
    "push_newest",
    "start_environment",
    "take_idle",
    "unlink",
]


@inlined
def end_environment(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    slot: int,
    time: float,
) -> None:
    """End an environment."""
    count = state.tally
    count[k.ALIVE] -= 1
    state.slots[count[k.FREE_SLOTS]] = slot
    count[k.FREE_SLOTS] += 1
    state.number[slot] = -1
    stats.totals[k.ALIVE_TIME] += time - state.born[slot]
    stats.series[k.ALIVE_CHANGE, bin_index(time, params.width, stats.series.shape[1])] -= 1


@inlined
def unlink(state: EnvironmentState, slot: int) -> None:
    """Remove an environment from the list of idle ones."""
    count = state.tally
    later = state.later[slot]
    earlier = state.earlier[slot]
    if later >= 0:
        state.earlier[later] = earlier
    else:
        count[k.NEWEST] = earlier
    if earlier >= 0:
        state.later[earlier] = later
    else:
        count[k.OLDEST] = later
    state.since[slot] = -1.0
    count[k.IDLE] -= 1


@inlined
def push_newest(state: EnvironmentState, slot: int) -> None:
    """Add an environment to the heap of the newest; if it is full, first drop stale entries."""
    count = state.tally
    if count[k.SPARE] == state.newest.shape[0] - HEAP_ROOM:
        size = 0
        for at in range(count[k.SPARE]):
            one = state.ranked[at]
            if -state.newest[at] == state.number[one] and state.since[one] >= 0.0:
                size = push(state.newest, state.ranked, size, state.newest[at], one)
        state.newest[size:] = math.inf
        count[k.SPARE] = size
    key = -float(state.number[slot])
    count[k.SPARE] = push(state.newest, state.ranked, count[k.SPARE], key, slot)


@inlined
def advance(
    state: EnvironmentState, stats: EnvironmentStats, params: EnvironmentParams, time: float
) -> None:
    """Advance to a time: end work, reclaim idle environments."""
    count = state.tally
    while count[k.BUSY] > 0 and state.ends[0] <= time:
        end = state.ends[0]
        slot = state.ending[0]
        count[k.BUSY] = pop(state.ends, state.ending, count[k.BUSY])
        if slot < 0:
            count[k.PROVISIONED_BUSY] -= 1
        elif end - state.born[slot] > params.lifetime:
            end_environment(state, stats, params, slot, end)
        else:
            last = count[k.NEWEST]
            state.earlier[slot] = last
            state.later[slot] = -1
            if last >= 0:
                state.later[last] = slot
            else:
                count[k.OLDEST] = slot
            count[k.NEWEST] = slot
            state.since[slot] = end
            count[k.IDLE] += 1
            if params.newest_first:
                push_newest(state, slot)
    while count[k.IDLE] > 0 and state.since[count[k.OLDEST]] + params.idle < time:
        slot = count[k.OLDEST]
        ended = state.since[slot] + params.idle
        unlink(state, slot)
        end_environment(state, stats, params, slot, ended)


@inlined
def take_idle(state: EnvironmentState, params: EnvironmentParams) -> int:
    """Take an idle environment; returns its slot, or -1."""
    count = state.tally
    if count[k.IDLE] == 0:
        return -1
    slot = int(count[k.NEWEST])
    if params.newest_first:
        while True:
            slot = int(state.ranked[0])
            key = state.newest[0]
            count[k.SPARE] = pop(state.newest, state.ranked, count[k.SPARE])
            if -key == state.number[slot] and state.since[slot] >= 0.0:
                break
    unlink(state, slot)
    return slot


@inlined
def start_environment(state: EnvironmentState, params: EnvironmentParams, time: float) -> int:
    """Start an environment if the limits allow it; returns its slot, or -1."""
    count = state.tally
    clock = state.clock
    on_demand = count[k.BUSY] + count[k.CALLING] - count[k.PROVISIONED_BUSY]
    if on_demand + max(count[k.PROVISIONED], count[k.PROVISIONED_BUSY]) >= params.limit:
        return -1
    if count[k.FREE_SLOTS] == 0:
        return -1
    clock[k.STARTS_LEFT] = min(
        params.start_burst,
        clock[k.STARTS_LEFT] + (time - clock[k.STARTS_AT]) * params.start_rate,
    )
    clock[k.STARTS_AT] = time
    if clock[k.STARTS_LEFT] < 1.0 - 1e-9:
        return -1
    clock[k.STARTS_LEFT] -= 1.0
    count[k.FREE_SLOTS] -= 1
    slot = state.slots[count[k.FREE_SLOTS]]
    state.born[slot] = time
    state.number[slot] = count[k.BORN]
    count[k.BORN] += 1
    count[k.ALIVE] += 1
    return int(slot)


@compiled
def finish(state: EnvironmentState, stats: EnvironmentStats, params: EnvironmentParams) -> None:
    """End all work; idle environments live until they are reclaimed, at most to the horizon."""
    advance(state, stats, params, max(stats.totals[k.LAST], params.horizon))
    end = max(stats.totals[k.LAST], params.horizon)
    while state.tally[k.IDLE] > 0:
        slot = state.tally[k.OLDEST]
        ended = min(state.since[slot] + params.idle, max(end, state.since[slot]))
        unlink(state, slot)
        end_environment(state, stats, params, slot, ended)
