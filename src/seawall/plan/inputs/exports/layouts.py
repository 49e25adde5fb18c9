"""Which columns of a table have what: times, durations, tokens."""

from msgspec import Struct

from seawall.plan.inputs.exports.rows import first_of
from seawall.plan.inputs.exports.tools import Format
from seawall.plan.inputs.exports.units import split_unit

__all__ = ["TIME_COLUMNS", "Layout", "bare_layout", "table_layout", "tool_layout"]

TIME_COLUMNS = (
    *("timestamp", "time", "arrival", "arrivaltime", "date", "datetime", "@timestamp", "start"),
    *("ts", "starttime", "timestamputc", "msec", "timeiso8601", "timelocal", "createdat"),
    *("created", "requesttimeepoch", "arrivedat", "startedat", "receivedat", "requestedat"),
    "eventtime",
)
_OUTPUT_TOKENS = (
    *("generatedtokens", "outputtokens", "completiontokens", "responsetokens", "numdecodetokens"),
    "tokens",
)
_INPUT_TOKENS = (
    *("contexttokens", "inputtokens", "prompttokens", "requesttokens", "numprefilltokens"),
)
# That of the whole request before that of its first byte.
_DURATIONS = (
    *("duration", "elapsed", "elapsedtime", "responsetime", "requesttime", "totaltime"),
    *("timetaken", "targetprocessingtime", "latency", ""),
)
_VEGETA = 6  # columns at least, without a head
_NANOSECONDS = 1e17  # since 1970, at least


class Layout(Struct, frozen=True, kw_only=True):
    """Which columns of a table have what; None: it has no such column.

    Attributes:
        source: What the table is.
        names: Of the columns, for errors.
        time: The column of times.
        time_scale: Seconds in the unit of the column's name. None: it has no unit.
        date: A column of dates, which the times of day belong to.
        duration: The column of durations.
        duration_scale: Seconds in the unit of durations. None: unknown.
        input_tokens: A column.
        output_tokens: A column.
        ends: See `Format`, as of the next.
        only: Column and value.
        measured: Whether only rows with a duration count.
        failed: Column and value.
        whole: See `Format`.
    """

    source: str
    names: list[str]
    time: int
    time_scale: float | None = None
    date: int | None = None
    duration: int | None = None
    duration_scale: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ends: bool = False
    only: tuple[int, str] | None = None
    measured: bool = False
    failed: tuple[int, str] | None = None
    whole: bool = False


def table_layout(head: list[str], plain: list[str]) -> Layout | None:
    """The layout of a table that is not one of a known tool. None: it has no column of times."""
    bare = [split_unit(word) for word in head]
    time = first_of(TIME_COLUMNS, plain)
    if time is None:
        time = first_of(TIME_COLUMNS, [word for word, _ in bare])
    if time is None:
        time = first_of(("requesttime",), plain)  # API Gateway's; nginx's is a duration
    if time is None:
        return None
    dated = "requesttimeepoch" in plain
    # The first column with one of the names, with a unit or without.
    duration = next(
        (
            at
            for wanted in _DURATIONS
            for at, (word, scale) in enumerate(bare)
            if at != time
            and word == wanted
            and (wanted or scale is not None)
            and not (dated and word == "requesttime")
        ),
        None,
    )
    inputs, outputs = first_of(_INPUT_TOKENS, plain), first_of(_OUTPUT_TOKENS, plain)
    # With tokens it is a table of model calls, without of requests.
    return Layout(
        source="arrivals",
        names=head,
        time=time,
        # nginx's msec is in seconds, with milliseconds as decimals.
        time_scale=None if plain[time] == "msec" else bare[time][1],
        date=_date_at(plain, time),
        duration=duration,
        duration_scale=None if duration is None else bare[duration][1],
        input_tokens=inputs,
        output_tokens=outputs,
        whole=inputs is None and outputs is None,
    )


def _date_at(plain: list[str], time: int) -> int | None:
    """The column of dates, where times of day have their own."""
    return plain.index("date") if plain[time] == "time" and "date" in plain else None


def tool_layout(found: Format, head: list[str], plain: list[str]) -> Layout:
    """The layout of a table of a known tool."""
    # `known_format` has found one of each.
    time, duration = (
        next(plain.index(each) for each in names if each in plain)
        for names in (found.time, found.duration)
    )

    def marked(rule: tuple[str, str] | None) -> tuple[int, str] | None:
        return None if rule is None or rule[0] not in plain else (plain.index(rule[0]), rule[1])

    return Layout(
        source=f"requests recorded by {found.tool}",
        names=head,
        time=time,
        date=_date_at(plain, time),
        duration=duration,
        duration_scale=found.scale,
        input_tokens=first_of(_INPUT_TOKENS, plain),
        output_tokens=first_of(_OUTPUT_TOKENS, plain),
        ends=found.ends,
        only=marked(found.only),
        measured=found.measured,
        failed=marked(found.failed),
        whole=found.whole,
    )


def bare_layout(first: list[str]) -> Layout:
    """The layout of a table without a header, by its first row: times are in its first column."""
    named = [f"column {at + 1}" for at in range(len(first))]
    if _is_vegeta(first):
        return Layout(
            source="requests recorded by vegeta", names=named, time=0, duration=2,
            duration_scale=1e-9, whole=True,
        )  # fmt: skip
    return Layout(source="arrivals", names=named, time=0)


def _is_vegeta(first: list[str]) -> bool:
    """`vegeta encode --to csv` writes time, status, latency, bytes out, bytes in, error, ..."""
    if len(first) < _VEGETA or not all(each.isdigit() for each in first[:5]):
        return False
    return float(first[0]) > _NANOSECONDS and (first[1] == "0" or 100 <= int(first[1]) <= 999)
