"""The lives of environments: started within the limits, idle, reclaimed."""

from seawall.plan.simulator.kernels.compiled import compiled, inlined
from seawall.plan.simulator.kernels.environments.arrays import (
    ALIVE,
    ALIVE_CHANGE,
    ALIVE_TIME,
    BORN,
    BUSY,
    FREE_SLOTS,
    IDLE,
    LAST,
    NEWEST,
    OLDEST,
    PROVISIONED,
    PROVISIONED_BUSY,
    SPARE,
    STARTS_AT,
    STARTS_LEFT,
    Crowd,
    EnvironmentParams,
    EnvironmentStats,
)
from seawall.plan.simulator.kernels.heaps import pop, push
from seawall.plan.simulator.kernels.recording import place

__all__ = [
    "end_environment",
    "finish",
    "rank",
    "settle",
    "start_environment",
    "take_idle",
    "unlink",
]


@inlined
def end_environment(
    crowd: Crowd, stats: EnvironmentStats, params: EnvironmentParams, slot: int, time: float
) -> None:
    """The environment ends."""
    count = crowd.tally
    count[ALIVE] -= 1
    crowd.slots[count[FREE_SLOTS]] = slot
    count[FREE_SLOTS] += 1
    crowd.number[slot] = -1
    stats.totals[ALIVE_TIME] += time - crowd.born[slot]
    stats.series[ALIVE_CHANGE, place(time, params.width, stats.series.shape[1])] -= 1


@inlined
def unlink(crowd: Crowd, slot: int) -> None:
    """Take it out of the idle ones."""
    count = crowd.tally
    later = crowd.later[slot]
    earlier = crowd.earlier[slot]
    if later >= 0:
        crowd.earlier[later] = earlier
    else:
        count[NEWEST] = earlier
    if earlier >= 0:
        crowd.later[earlier] = later
    else:
        count[OLDEST] = later
    crowd.since[slot] = -1.0
    count[IDLE] -= 1


@inlined
def rank(crowd: Crowd, slot: int) -> None:
    """Add it to those to choose the newest from; where that is full, drop who died meanwhile."""
    count = crowd.tally
    if count[SPARE] == crowd.newest.shape[0]:
        size = 0
        for at in range(count[SPARE]):
            one = crowd.ranked[at]
            if -crowd.newest[at] == crowd.number[one] and crowd.since[one] >= 0.0:
                size = push(crowd.newest, crowd.ranked, size, crowd.newest[at], one)
        count[SPARE] = size
    key = -float(crowd.number[slot])
    count[SPARE] = push(crowd.newest, crowd.ranked, count[SPARE], key, slot)


@inlined
def settle(crowd: Crowd, stats: EnvironmentStats, params: EnvironmentParams, time: float) -> None:
    """Everything that environments did until now: work ended, idle ones reclaimed."""
    count = crowd.tally
    while count[BUSY] > 0 and crowd.ends[0] <= time:
        end = crowd.ends[0]
        slot = crowd.ending[0]
        count[BUSY] = pop(crowd.ends, crowd.ending, count[BUSY])
        if slot < 0:
            count[PROVISIONED_BUSY] -= 1
        elif end - crowd.born[slot] > params.lifetime:
            end_environment(crowd, stats, params, slot, end)
        else:
            last = count[NEWEST]
            crowd.earlier[slot] = last
            crowd.later[slot] = -1
            if last >= 0:
                crowd.later[last] = slot
            else:
                count[OLDEST] = slot
            count[NEWEST] = slot
            crowd.since[slot] = end
            count[IDLE] += 1
            if params.newest_first:
                rank(crowd, slot)
    while count[IDLE] > 0 and crowd.since[count[OLDEST]] + params.idle < time:
        slot = count[OLDEST]
        ended = crowd.since[slot] + params.idle
        unlink(crowd, slot)
        end_environment(crowd, stats, params, slot, ended)


@inlined
def take_idle(crowd: Crowd, params: EnvironmentParams) -> int:
    """An idle environment, taken out; or -1."""
    count = crowd.tally
    if count[IDLE] == 0:
        return -1
    slot = int(count[NEWEST])
    if params.newest_first:
        while True:
            slot = int(crowd.ranked[0])
            key = crowd.newest[0]
            count[SPARE] = pop(crowd.newest, crowd.ranked, count[SPARE])
            if -key == crowd.number[slot] and crowd.since[slot] >= 0.0:
                break
    unlink(crowd, slot)
    return slot


@inlined
def start_environment(crowd: Crowd, params: EnvironmentParams, time: float) -> int:
    """A place for a new environment if the limits let it start; or -1."""
    count = crowd.tally
    clock = crowd.clock
    on_demand = count[BUSY] - count[PROVISIONED_BUSY]
    if on_demand + max(count[PROVISIONED], count[PROVISIONED_BUSY]) >= params.limit:
        return -1
    if count[FREE_SLOTS] == 0:
        return -1
    clock[STARTS_LEFT] = min(
        params.start_burst, clock[STARTS_LEFT] + (time - clock[STARTS_AT]) * params.start_rate
    )
    clock[STARTS_AT] = time
    if clock[STARTS_LEFT] < 1.0 - 1e-9:
        return -1
    clock[STARTS_LEFT] -= 1.0
    count[FREE_SLOTS] -= 1
    slot = crowd.slots[count[FREE_SLOTS]]
    crowd.born[slot] = time
    crowd.number[slot] = count[BORN]
    count[BORN] += 1
    count[ALIVE] += 1
    return int(slot)


@compiled
def finish(crowd: Crowd, stats: EnvironmentStats, params: EnvironmentParams) -> None:
    """All work ends; environments that are idle live until reclaimed, at most to the horizon."""
    settle(crowd, stats, params, max(stats.totals[LAST], params.horizon))
    end = max(stats.totals[LAST], params.horizon)
    while crowd.tally[IDLE] > 0:
        slot = crowd.tally[OLDEST]
        ended = min(crowd.since[slot] + params.idle, max(end, crowd.since[slot]))
        unlink(crowd, slot)
        end_environment(crowd, stats, params, slot, ended)
