"""Lines REPORT of a Lambda function among the lines of its log.

https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-view.html: for each request
START, END and `REPORT RequestId: … Duration: 874.31 ms …`; the last is written at the end.
"""

import re
from collections.abc import Iterable, Iterator

from seawall.plan.inputs.exports.rows import Row, cell

__all__ = ["is_function_log", "only_reports"]

_REPORT = re.compile(r"REPORT RequestId: \S+\s+Duration: ([\d.]+) ms")


def is_function_log(sample: Iterable[Row], message: int) -> bool:
    """Whether one of the lines is a REPORT. message: the column of messages."""
    return any(_REPORT.match(cell(row, message)) for row in sample)


def only_reports(
    head: list[str], rows: Iterable[Row], message: int
) -> tuple[list[str], Iterator[Row]]:
    """The table of the lines REPORT, with their durations in a column `@duration`.

    Args:
        head: Names of the columns.
        rows: Lines of a function's log.
        message: The column of messages.

    Returns:
        Head and rows.
    """

    def reports() -> Iterator[Row]:
        for row in rows:
            if report := _REPORT.match(cell(row, message)):
                blank = [""] * (len(head) - len(row.cells))
                yield Row(row.line, [*row.cells[: len(head)], *blank, report[1]])

    return [*head, "@duration"], reports()
