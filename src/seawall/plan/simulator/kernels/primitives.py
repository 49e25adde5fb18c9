"""Primitives of the compiled loops: heaps, a tree of minima, histograms and bins of time."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import inlined

__all__ = [
    "BUCKETS",
    "HEAP_ROOM",
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
Items = NDArray[np.int64] | NDArray[np.uint32]


# Heaps are of four children a node: half as deep as with two. The least child is found without a
# branch, which would be mispredicted half of the time. Indices are unsigned where it matters: numba
# lets negative ones count from the end.
HEAP_ROOM = 4  # entries more than the greatest size; entries from the size on are infinite
_at = np.uint64


@inlined
def push(keys: Floats, items: Items, size: int, key: float, item: int) -> int:
    """Add an entry to the heap of `size` entries; returns its new size."""
    at = size
    while at > 0:
        above = (at - 1) >> 2
        if keys[_at(above)] <= key:
            break
        keys[_at(at)] = keys[_at(above)]
        items[_at(at)] = items[_at(above)]
        at = above
    keys[_at(at)] = key
    items[_at(at)] = item
    return size + 1


@inlined
def pop(keys: Floats, items: Items, size: int) -> int:
    """Remove the entry with the least key, which is at 0; returns the new size."""
    last = _at(size - 1)
    key = keys[last]
    keys[last] = math.inf
    if size > 1:
        replace_top(keys, items, size - 1, key, items[last])
    return size - 1


@inlined
def replace_top(keys: Floats, items: Items, size: int, key: float, item: int) -> None:
    """Replace the entry with the least key."""
    at = 0
    below = 1
    while below < size:
        one, two = keys[_at(below)], keys[_at(below + 1)]
        three, four = keys[_at(below + 2)], keys[_at(below + 3)]
        left = below + int(two < one)
        right = below + 2 + int(four < three)
        least = left + (right - left) * int(min(three, four) < min(one, two))
        if keys[_at(least)] >= key:
            break
        keys[_at(at)] = keys[_at(least)]
        items[_at(at)] = items[_at(least)]
        at = least
        below = 4 * at + 1
    keys[_at(at)] = key
    items[_at(at)] = item


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
    return min(int(time * (1.0 / width)), bins - 1)  # the quotient is moved out of the loops
