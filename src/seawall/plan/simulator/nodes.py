"""Machines under pods: where there is room, what is launched, what is taken away."""

from msgspec import Struct

from seawall.plan.inputs.platforms import Nodes

__all__ = ["Machine", "NodePool"]


class Machine(Struct):
    """A node. ready: when it can start pods; has_image: when its image is pulled."""

    number: int
    since: float
    ready: float
    has_image: float
    pods: int = 0
    gone: bool = False
    taken: bool = False


class NodePool:
    """The nodes, and how many there were when."""

    def __init__(self, settings: Nodes, needed: int) -> None:
        self._each = settings.pods_each
        self.machines: list[Machine] = []
        self.changes: list[tuple[float, int]] = []
        self.launched = 0
        self._ended: list[tuple[float, float]] = []
        self._roomy: list[Machine] = []  # those with room for a pod; a few gone or taken among them
        for _ in range(-(-needed // self._each) + settings.spare):
            self._add(0.0, 0.0, 0.0)

    def _add(self, since: float, ready: float, has_image: float) -> Machine:
        machine = Machine(len(self.machines), since, ready, has_image)
        self.machines.append(machine)
        self._roomy.append(machine)
        self.changes.append((since, 1))
        return machine

    def fill(self, pods: int) -> list[Machine]:
        """Room for the first pods, on one node after the other: the node of each."""
        chosen = [self.machines[at // self._each] for at in range(pods)]
        for machine in chosen:
            machine.pods += 1
        self._roomy = [each for each in self.machines if each.pods < self._each]
        return chosen

    def place(self, now: float, launch: float, pull: float) -> Machine:
        """Room for a pod: on the fullest node that has some, else on a new one.

        launch, pull: seconds, for a new one. It counts from its launch.
        """
        self._roomy = [each for each in self._roomy if not each.gone and not each.taken]
        if self._roomy:
            chosen = max(self._roomy, key=lambda each: (each.pods, -each.number))
        else:
            self.launched += 1
            chosen = self._add(now, now + launch, now + launch + pull)
        chosen.pods += 1
        if chosen.pods == self._each:
            self._roomy.remove(chosen)
        return chosen

    def leave(self, machine: Machine) -> None:
        """A pod of it has ended."""
        if machine.pods == self._each:
            self._roomy.append(machine)
        machine.pods -= 1

    def remove(self, machine: Machine, now: float) -> None:
        """The node ends."""
        if not machine.gone:
            machine.gone = True
            self.changes.append((now, -1))
            self._ended.append((machine.since, now))

    def seconds(self, horizon: float) -> float:
        """Nodes, times how long, until the horizon."""
        alive = sum(max(0.0, horizon - each.since) for each in self.machines if not each.gone)
        return alive + sum(max(0.0, min(end, horizon) - since) for since, end in self._ended)
