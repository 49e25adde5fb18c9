"""Primitives of the compiled loops: heaps, a tree of minima, histograms and bins of time."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import inlined

__all__ = [
    "BUCKETS",
    "SUB_BITS",
    "bin_index",
    "bucket",
    "bucket_edges",
    "pop",
    "push",
    "replace_top",
    "set_leaf",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@inlined
def push(keys: Floats, items: Integers, size: int, key: float, item: int) -> int:
    """Add an entry to the heap of `size` entries; returns its new size."""
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
    """Remove the entry with the least key, which is at 0; returns the new size."""
    size -= 1
    if size > 0:
        replace_top(keys, items, size, keys[size], items[size])
    return size


@inlined
def replace_top(keys: Floats, items: Integers, size: int, key: float, item: int) -> None:
    """Replace the entry with the least key."""
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

    tree: its `leaves`, a power of two, start at index `leaves`; the children of a node are at twice
    its index and the next one, so that the minimum of all is at 1.
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


SUB_BITS = 6  # buckets in an octave, as a power of two: at most 1.6 % wide
_LOWEST = 1003  # the biased exponent of 2**-20: below a microsecond is zero
_OCTAVES = 44
BUCKETS = 1 + (_OCTAVES << SUB_BITS)


@inlined
def bucket(value: float) -> int:
    """The bucket of a time in seconds: 0 under a microsecond, then by exponent and mantissa."""
    bits = np.float64(value).view(np.int64)
    index = int(bits >> (52 - SUB_BITS)) - (_LOWEST << SUB_BITS) + 1
    if index < 0:
        return 0
    return BUCKETS - 1 if index >= BUCKETS else index


def bucket_edges() -> NDArray[np.float64]:
    """The edges of the buckets, BUCKETS + 1 of them, in seconds; the first bucket starts at 0."""
    number = np.arange(BUCKETS) + (_LOWEST << SUB_BITS)
    edges = (number << (52 - SUB_BITS)).astype(np.int64).view(np.float64)
    return np.concatenate(([0.0], edges))


@inlined
def bin_index(time: float, width: float, bins: int) -> int:
    """The bin of a time; later times are in the last one."""
    return min(int(time / width), bins - 1)
