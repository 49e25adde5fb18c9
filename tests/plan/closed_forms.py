"""Closed forms of queueing theory: oracles for the simulator.

Rates and services in the same unit of time; `load` is arrival rate times mean service, in erlangs.
"""

import math

import numpy as np

__all__ = [
    "cold_start_share",
    "erlang_b",
    "erlang_c",
    "idle_environments",
    "mmc_wait",
    "mmck_blocking",
    "mmck_wait",
    "pollaczek_khinchine",
]


def erlang_b(servers: int, load: float) -> float:
    """Blocking probability of M/G/c/c.

    Recurrence B(c) = a B(c-1) / (c + a B(c-1)); stable for large c.
    Source: Jagerman, Bell System Technical Journal 53(3), 1974.
    """
    blocking = 1.0
    for count in range(1, servers + 1):
        blocking = load * blocking / (count + load * blocking)
    return blocking


def erlang_c(servers: int, load: float) -> float:
    """Probability that one has to wait in M/M/c; load < servers.

    Source: Cooper, Introduction to Queueing Theory, 1981, chapter 3: C = B / (1 - (a/c)(1 - B)).
    """
    blocking = erlang_b(servers, load)
    return blocking / (1.0 - load / servers * (1.0 - blocking))


def mmc_wait(servers: int, rate: float, service: float) -> float:
    """Mean wait in the queue of M/M/c: C / (c/s - rate)."""
    return erlang_c(servers, rate * service) / (servers / service - rate)


def _mmck(servers: int, load: float, room: int) -> list[float]:
    """How likely each number in the system is, 0 to room (Gross & Harris, section 2.4)."""
    weights = [1.0]
    for count in range(1, room + 1):
        weights.append(weights[-1] * load / min(count, servers))
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def mmck_blocking(servers: int, load: float, room: int) -> float:
    """Probability that one is refused in M/M/c/K; room: K, in service and waiting."""
    return _mmck(servers, load, room)[-1]


def mmck_wait(servers: int, rate: float, service: float, room: int) -> float:
    """Mean wait of admitted requests in M/M/c/K, by Little's law."""
    share = _mmck(servers, rate * service, room)
    queue = math.fsum((count - servers) * share[count] for count in range(servers, room + 1))
    return queue / (rate * (1.0 - share[-1]))


def pollaczek_khinchine(rate: float, mean: float, second_moment: float) -> float:
    """Mean wait in M/G/1: rate E[S^2] / (2 (1 - rate E[S]))."""
    return rate * second_moment / (2.0 * (1.0 - rate * mean))


def _passages(rate: float, service: float, states: int, idle: float) -> tuple[float, float]:
    """Sums over k of p(k) P(T_k > idle), and of rate p(k) E[min(T_k, idle)].

    p(k): that k are busy in M/M/oo; T_k: from there until k+1 are busy for the first time.
    """
    load = rate * service
    late = spare = 0.0
    weight = math.exp(-load)
    for busy in range(states):
        # The generator of M/M/oo on 0..busy, where k+1 ends it, made symmetric.
        up = np.full(busy + 1, rate)
        down = np.arange(busy + 1) / service
        matrix = np.diag(-(up + down))
        beside = np.sqrt(up[:-1] * down[1:])
        matrix += np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(matrix)
        # exp(Qt) 1 at `busy`, by similarity with sqrt of the stationary weights.
        logs = np.array([n * math.log(load) - math.lgamma(n + 1) for n in range(busy + 1)]) / 2.0
        shape = np.exp(logs - logs[busy])
        parts = vectors[busy] * (shape @ vectors)
        survive = float(parts @ np.exp(values * idle))
        decay = np.minimum(values, -1e-300)  # all are below 0, but for rounding
        within = float(parts @ (np.expm1(decay * idle) / decay))
        late += weight * survive
        spare += rate * weight * within
        weight *= load / (busy + 1)
    return late, spare


def cold_start_share(rate: float, service: float, idle: float) -> float:
    """The share of requests that find no environment, where an idle one is kept for `idle`.

    One request an environment, Poisson arrivals, exponential service, no limit; the one that
    became idle last is used first. The k+1st environment that was freed when the k+1st of the busy
    ended is used again when k+1 are busy the next time: so a request that finds k busy is cold if
    that was longer ago than `idle`, which is a first passage of M/M/oo from k to k+1.
    """
    return _passages(rate, service, _states(rate * service), idle)[0]


def idle_environments(rate: float, service: float, idle: float) -> float:
    """Mean number of idle environments in the same model, by Little's law."""
    return _passages(rate, service, _states(rate * service), idle)[1]


def _states(load: float) -> int:
    return int(load + 12.0 * math.sqrt(load) + 25)
