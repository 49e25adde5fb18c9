"""Binary heaps in arrays: a key and a whole number that goes with it; and a tree of minima."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import inlined

__all__ = ["pop", "push", "replace_top", "set_leaf"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@inlined
def push(keys: Floats, items: Integers, size: int, key: float, item: int) -> int:
    """Add to the heap of `size` entries; its new size."""
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if keys[above] <= key:
            break
        keys[at] = keys[above]
        items[at] = items[above]
        at = above
    keys[at] = key
    items[at] = item
    return size + 1


@inlined
def pop(keys: Floats, items: Integers, size: int) -> int:
    """Remove the entry with the least key, which is at 0; the new size."""
    size -= 1
    if size > 0:
        replace_top(keys, items, size, keys[size], items[size])
    return size


@inlined
def replace_top(keys: Floats, items: Integers, size: int, key: float, item: int) -> None:
    """Put an entry in the place of the least one."""
    at = 0
    below = 1
    while below < size:
        if below + 1 < size and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[at] = keys[below]
        items[at] = items[below]
        at = below
        below = 2 * at + 1
    keys[at] = key
    items[at] = item


@inlined
def set_leaf(tree: Floats, leaves: int, leaf: int, key: float) -> None:
    """Change a leaf of a tree of minima.

    tree: its `leaves`, a power of two, from `leaves` on; a node's children are at twice its place
    and one further; so the least of all is at 1.
    """
    at = leaves + leaf
    tree[at] = key
    at >>= 1
    while at >= 1:
        least = min(tree[2 * at], tree[2 * at + 1])
        if tree[at] == least:
            break
        tree[at] = least
        at >>= 1
