"""The load that is offered to a fleet, as a share of its capacity: from 1 on, queues only grow."""

from msgspec import structs

from seawall.plan.inputs.platforms import Eks, Lambda, Managed, Platform
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pods import cores_of, slots_of

__all__ = ["offered_load", "overload"]


def offered_load(workload: Workload, platform: Platform) -> float:
    """Offered work by capacity, of processors or slots, the greater; 0 without queues.

    The rate is that of the Poisson process, with its strongest campaign. Functions with one request
    at a time refuse what is too much at once, and their processors are their own.
    """
    if not isinstance(platform, Eks | Managed):
        return 0.0
    arrivals, service = workload.arrivals, workload.service
    rate = arrivals.rate * max([1.0, *(each.factor for each in arrivals.campaigns)])
    cpu = rate * sum(stage.cpu_ms for stage in service.stages) / 1e3
    match platform:
        case Eks():
            pods = platform.pods
            slots = rate * service.mean_seconds / slots_of(platform, workload)
            return max(cpu / platform.cores, slots) / pods if pods else 0.0
        case Managed():
            return cpu / cores_of(platform) / platform.minimum


def overload(workload: Workload, platform: Platform) -> float:
    """How many times more is asked than can be: of all places at once, or of processors."""
    arrivals, service = workload.arrivals, workload.service
    rate = arrivals.rate * max([1.0, *(each.factor for each in arrivals.campaigns)])
    crowd = max([0, *(each.size for each in arrivals.spikes)])
    match platform:
        case Lambda():
            places, processors = platform.limit, 0.0
        case Eks():
            scaler = platform.scaler
            pods = platform.pods if scaler is None else max(platform.pods, scaler.maximum)
            most = structs.replace(platform, pods=pods, scaler=None)
            places = pods * (slots_of(platform, workload) + platform.queue)
            processors = offered_load(workload, most)
        case Managed():
            places = platform.maximum * slots_of(platform, workload)
            processors = offered_load(workload, platform)
        case _:
            return 0.0
    return max(processors, (crowd + rate * service.mean_seconds) / max(places, 1))
