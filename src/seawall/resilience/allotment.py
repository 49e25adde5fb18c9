"""One pod's part of a limit that all pods share: decided here between two looks at the counter.

A pod takes blocks of the shared limit, and spends them by itself. How large a block is follows
demand, and what is left: so a busy pod asks rarely, and near the limit no pod takes what others
could use.
"""

__all__ = ["Allotment"]

_CALLS_AHEAD = 16
_PART = 4


class Allotment:
    """One measure of one window, such as the tokens of this minute; in whole units.

    limit: of all pods together. expected: what this pod spent in the window before.
    granted: what the shared counter gave this pod, net of what went back. spent: what was used
    here, or is promised to calls that run. used: by all pods, when the counter was last seen.
    floor: what may be spent here without asking anybody, while the counter cannot be asked.
    """

    __slots__ = ("_expected", "floor", "granted", "limit", "spent", "used")

    def __init__(self, limit: int, *, expected: int = 0) -> None:
        self.limit = limit
        self._expected = expected
        self.granted = 0
        self.spent = 0
        self.used = 0
        self.floor = 0

    @property
    def free(self) -> int:
        """What can be spent now; less than zero where more was spent than there was."""
        return max(self.granted, self.floor) - self.spent

    @property
    def spendable(self) -> int:
        """What may be promised to another call: nothing of it while all together are over."""
        return self.free - max(0, self.used - self.limit)

    @property
    def left(self) -> int:
        """The most that this pod could still have in this window, as far as it knows."""
        return self.free + max(0, self.limit - self.used)

    def spend(self, amount: int) -> None:
        """Use so much; less than zero for what was promised and not used."""
        self.spent += amount

    def grant(self, granted: int, used: int) -> None:
        """The counter gave so much, and counts so much of all pods."""
        self.granted += granted
        self.used = used

    def block(self, need: int) -> int:
        """How much to ask the counter for, when `need` is wanted and not there; 0 if it is.

        Sixteen times the need, or as much again as was spent in this window, or a quarter of
        what the window before took, whatever is most; but no more than a quarter of what is
        left of the limit, unless the need itself is larger. So the number of looks grows with
        the logarithm of the calls, and all of the limit can be had by one pod.
        """
        missing = need - self.free
        if missing <= 0:
            return 0
        ahead = max(_CALLS_AHEAD * need, self.spent, self._expected // 4)
        return max(missing, min(ahead, (self.limit - self.used) // _PART))
