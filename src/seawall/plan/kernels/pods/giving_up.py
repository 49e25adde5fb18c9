"""What becomes of an attempt that failed, and deadlines in order of time."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.kernels.compiled import inlined
from seawall.plan.kernels.heaps import push
from seawall.plan.kernels.pods.arrays import (
    REFUSED,
    RETRYING,
    SERVED,
    TICKETS,
    PodBooks,
    PodLaw,
    Requests,
)
from seawall.plan.kernels.randomness import uniform
from seawall.plan.kernels.recording import place

__all__ = ["give_up", "remember"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@inlined
def give_up(
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """An attempt failed: it comes again, or that was all. outcome: 1 refused, 2 left, 3 cut off."""
    count = requests.tally
    if tries < law.retries and (outcome != 2 or law.retry_timeouts):
        u = uniform(law.jitters, request * 32 + tries)
        delay = min(law.backoff_cap, law.backoff * 2.0**tries) * u
        count[TICKETS] -= 1
        ticket = requests.tickets[count[TICKETS]]
        requests.again_request[ticket] = request
        requests.again_tries[ticket] = tries + 1
        requests.again_first[ticket] = first
        count[RETRYING] = push(requests.again, requests.ticket, count[RETRYING], at + delay, ticket)
        return
    books.counts[SERVED + outcome] += 1
    books.series[REFUSED + outcome - 1, place(at, law.width, books.series.shape[1])] += 1
    if books.kept.shape[0] > 0:
        books.kept[request, 0] = first
        books.kept[request, 1] = -1.0
        books.kept[request, 2] = at - first
        books.kept[request, 3] = outcome


@inlined
def remember(
    requests: Requests,
    times: Floats,
    slots: Integers,
    serials: Integers,
    head: int,
    size: int,
    time: float,
    slot: int,
) -> None:
    """Add to a ring of deadlines; head, size: where its place and size are in `tally`."""
    count = requests.tally
    room = times.shape[0]
    if count[size] == room:  # forget those that are answered
        kept = 0
        for at in range(room):
            old = (count[head] + at) % room
            if requests.serial[slots[old]] == serials[old]:
                new = (count[head] + kept) % room
                times[new] = times[old]
                slots[new] = slots[old]
                serials[new] = serials[old]
                kept += 1
        count[size] = kept
    at = (count[head] + count[size]) % room
    times[at] = time
    slots[at] = slot
    serials[at] = requests.serial[slot]
    count[size] += 1
