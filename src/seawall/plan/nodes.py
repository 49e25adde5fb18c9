"""Machines under pods: where there is room, what is launched, what is taken away."""

from msgspec import Struct

from seawall.plan.platforms import Nodes

__all__ = ["Machine", "Park"]


class Machine(Struct):
    """A node. ready: when it can start pods; has_image: when its image is pulled."""

    number: int
    since: float
    ready: float
    has_image: float
    pods: int = 0
    gone: bool = False
    taken: bool = False


class Park:
    """The nodes, and how many there were when."""

    def __init__(self, settings: Nodes, needed: int) -> None:
        self._each = settings.pods_each
        self.machines: list[Machine] = []
        self.changes: list[tuple[float, int]] = []
        self.launched = 0
        self._ended: list[tuple[float, float]] = []
        for _ in range(-(-needed // self._each) + settings.spare):
            self._add(0.0, 0.0, 0.0)

    def _add(self, since: float, ready: float, has_image: float) -> Machine:
        machine = Machine(len(self.machines), since, ready, has_image)
        self.machines.append(machine)
        self.changes.append((since, 1))
        return machine

    def place(self, now: float, launch: float, pull: float) -> Machine:
        """Room for a pod: on the fullest node that has some, else on a new one.

        launch, pull: seconds, for a new one. It counts from its launch.
        """
        fitting = [
            each
            for each in self.machines
            if not each.gone and not each.taken and each.pods < self._each
        ]
        if fitting:
            chosen = max(fitting, key=lambda each: (each.pods, -each.number))
        else:
            self.launched += 1
            chosen = self._add(now, now + launch, now + launch + pull)
        chosen.pods += 1
        return chosen

    def leave(self, machine: Machine) -> None:
        """A pod of it has ended."""
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
