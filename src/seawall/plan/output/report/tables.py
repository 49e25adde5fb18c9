"""What the tables of the report show: rows picked and added up from the answer."""

from msgspec import Struct

from seawall.plan.decision.answer import Answer, PlatformAnswer, PlatformName

__all__ = ["Instant", "Row", "bill_rows", "side_by_side", "spike_rows"]

_LAMBDAS: tuple[PlatformName, ...] = (
    "lambda", "lambda-snapstart", "lambda-provisioned", "lambda-managed"
)  # fmt: skip
_AT = (-10.0, 0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHOWN = ("in_service", "queued", "cold_starts", "throttled", "first_token_mean")


class Row(Struct, frozen=True):
    """A line of the bill, and its share of the whole."""

    title: str
    quantity: float
    unit: str
    price: float
    monthly: float
    share: float
    source: str
    uncertain: bool


class Instant(Struct, frozen=True):
    """A moment of the spike. at: seconds from it; the values of `_SHOWN` on both platforms."""

    at: float
    left: tuple[float | None, ...]
    right: tuple[float | None, ...]


def side_by_side(answer: Answer) -> tuple[PlatformName, PlatformName]:
    """Lambda and EKS, to stand side by side: the best of Lambda's kinds, and EKS.

    The best is the choice or runner-up, if one of them is Lambda's; they cannot both be EKS.
    """
    best = answer.choice if answer.choice in _LAMBDAS else answer.runner_up
    return best, "eks"


def bill_rows(platform: PlatformAnswer) -> list[Row]:
    """What it costs, the greatest first."""
    whole = sum(item.monthly for item in platform.items)
    return [
        Row(
            item.title, item.quantity, item.unit, item.price, item.monthly,
            item.monthly / whole if whole else 0.0, item.source, item.uncertain,
        )
        for item in sorted(platform.items, key=lambda item: -item.monthly)
    ]  # fmt: skip


def spike_rows(answer: Answer, left: PlatformName, right: PlatformName) -> list[Instant]:
    """Some moments of the spike, for those who read rather than look."""
    both = answer.platforms[left].series, answer.platforms[right].series
    moments: tuple[float, ...] = _AT
    if not answer.traffic.spike_size:
        bins, width = len(both[0].values["arrived"]), both[0].bin_seconds
        moments = tuple(both[0].start + width * (bins * each // 12) for each in range(12))
    found = []
    for at in moments:
        sides = []
        for series in both:
            # The bin that a moment is in; the half second is the middle of one.
            place = int((at + 0.5 * series.bin_seconds - series.start) // series.bin_seconds)
            values = [series.values.get(name, ()) for name in _SHOWN]
            if all(0 <= place < len(each) for each in values):
                sides.append(tuple(each[place] for each in values))
        if len(sides) == len(both):
            found.append(Instant(at, sides[0], sides[1]))
    return found
