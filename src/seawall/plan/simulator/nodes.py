"""Nodes of pods: assignment of pods, launches and removals."""

import math

from msgspec import Struct

from seawall.plan.inputs.platforms import Nodes

__all__ = ["Node", "NodePool"]


class Node(Struct):
    """A node. since: of its launch; ready: when it can start pods; has_image: when it is pulled."""

    number: int
    since: float
    ready: float
    has_image: float
    pods: int = 0
    gone: bool = False
    taken: bool = False


class NodePool:
    """The nodes and the changes of their number.

    Args:
        settings: Of the nodes.
        needed: Pods at the start.
    """

    def __init__(self, settings: Nodes, needed: int) -> None:
        self._each = settings.pods_each
        self.nodes: list[Node] = []
        self.changes: list[tuple[float, int]] = []
        self.launched = 0
        self._ended: list[tuple[float, float]] = []
        self._settings = settings
        self._tokens, self._filled = settings.launch_burst, 0.0
        self._with_room: list[Node] = []  # with room for a pod; a few of them gone or taken
        for _ in range(-(-needed // self._each) + settings.spare):
            self._add(0.0, 0.0, 0.0)

    def _add(self, since: float, ready: float, has_image: float) -> Node:
        node = Node(len(self.nodes), since, ready, has_image)
        self.nodes.append(node)
        self._with_room.append(node)
        self.changes.append((since, 1))
        return node

    def assign_first(self, pods: int) -> list[Node]:
        """Assign the first pods, filling one node after the other; returns the node of each."""
        chosen = [self.nodes[at // self._each] for at in range(pods)]
        for node in chosen:
            node.pods += 1
        self._with_room = [each for each in self.nodes if each.pods < self._each]
        return chosen

    def assign(self, now: float, launch: float, pull: float) -> Node:
        """Assign a pod to the fullest node with room, else to a new one.

        Args:
            now: Seconds.
            launch: Seconds, for a new node. It counts from its launch.
            pull: Seconds to pull the image, for a new node.
        """
        self._with_room = [each for each in self._with_room if not each.gone and not each.taken]
        if self._with_room:
            chosen = max(self._with_room, key=lambda each: (each.pods, -each.number))
        else:
            self.launched += 1
            ready = now + self._delay(now) + launch
            chosen = self._add(now, ready, ready + pull)
        chosen.pods += 1
        if chosen.pods == self._each:
            self._with_room.remove(chosen)
        return chosen

    def _delay(self, now: float) -> float:
        """Seconds until the rate of launches allows another one: a bucket of tokens."""
        burst, rate = self._settings.launch_burst, self._settings.launch_rate
        if burst == math.inf:
            return 0.0
        self._tokens = min(burst, self._tokens + (now - self._filled) * rate) - 1.0
        self._filled = now
        return max(0.0, -self._tokens / rate)

    def release(self, node: Node) -> None:
        """A pod of the node has ended."""
        if node.pods == self._each:
            self._with_room.append(node)
        node.pods -= 1

    def remove(self, node: Node, now: float) -> None:
        """Remove a node."""
        if not node.gone:
            node.gone = True
            self.changes.append((now, -1))
            self._ended.append((node.since, now))

    def seconds(self, horizon: float) -> float:
        """Node-seconds until the horizon."""
        alive = sum(max(0.0, horizon - each.since) for each in self.nodes if not each.gone)
        return alive + sum(max(0.0, min(end, horizon) - since) for since, end in self._ended)
