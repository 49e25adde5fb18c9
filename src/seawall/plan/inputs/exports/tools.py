"""Tables that load generators, proxies and clouds write: their columns and units.

JMeter (https://jmeter.apache.org/usermanual/listeners.html#csvlogformat): `timeStamp` in ms since
1970, `elapsed` and `Latency` in ms. k6 (https://grafana.com/docs/k6/latest/results-output/real-time/csv/):
a row for each sample, `http_req_duration` in ms, stamped at its end. Locust
(https://docs.locust.io/en/stable/retrieving-stats.html): counts, once a second. hey, oha: seconds
from the beginning. ab -g: `seconds` since 1970, `ttime` in ms. vegeta
(https://github.com/tsenart/vegeta#usage-encode): ns. nginx
(https://nginx.org/en/docs/http/ngx_http_log_module.html): `msec` and `request_time` in seconds, at
the end of a request. HAProxy (https://docs.haproxy.org/3.0/configuration.html#8.4): `Ta` in ms.
Application Insights (https://learn.microsoft.com/azure/azure-monitor/reference/tables/apprequests):
`duration` in ms. API Gateway
(https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html):
`requestTimeEpoch` and `responseLatency` in ms. CloudFront
(https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html):
`date` and `time` of the end, `time-taken` in seconds. CloudWatch Logs Insights
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html):
`@duration` of a Lambda function in ms, in the line REPORT, which is written at the end. BurstGPT
(https://github.com/HPMLL/BurstGPT): `Elapsed time` of the model call in seconds.
"""

from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Format", "known_format", "unusable_table", "unusable_text"]


class Format(Struct, frozen=True):
    """The table of one tool. Names of columns are in lower case without punctuation.

    Attributes:
        tool: Its name.
        columns: Required columns.
        time: Names of the column of times; the first that exists is used.
        duration: Names of the column of durations, likewise.
        scale: Seconds in the unit of durations.
        any_of: Columns of which at least one is required; empty: none.
        exact: Required columns, spelled exactly so.
        ends: Whether times are those of the ends of requests.
        only: A column and its value in the rows that count, if the table has the column.
        measured: Whether only rows with a duration count.
        failed: A column and its value in rows without a duration.
        whole: Whether durations are those of whole requests, not of the model call alone.
    """

    tool: str
    columns: frozenset[str]
    time: tuple[str, ...]
    duration: tuple[str, ...]
    scale: float
    any_of: frozenset[str] = frozenset()
    exact: frozenset[str] = frozenset()
    ends: bool = False
    only: tuple[str, str] | None = None
    measured: bool = False
    failed: tuple[str, str] | None = None
    whole: bool = True


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_JMETER = Format(
    *("JMeter", _set("timestamp elapsed"), ("timestamp",), ("elapsed",), 1e-3),
    any_of=_set("label responsecode threadname success allthreads idletime connect"),
    failed=("success", "false"),
)
_INSIGHTS = _set("performancebucket operationid cloudrolename itemtype resultcode appid")
_FORMATS = (
    _JMETER,
    Format(
        *("JMeter", _set("timestamp"), ("timestamp",), ("elapsed", "latency"), 1e-3),
        any_of=_set("elapsed latency"),
        exact=_set("timeStamp"),
        failed=("success", "false"),
    ),
    Format(
        *("k6", _set("metricname timestamp metricvalue"), ("timestamp",), ("metricvalue",), 1e-3),
        ends=True,
        only=("metricname", "http_req_duration"),
    ),
    Format(
        *("API Gateway", _set("responselatency"), ("requesttimeepoch", "requesttime")),
        *(("responselatency",), 1e-3),
    ),
    Format(
        *("CloudFront", _set("date time xedgelocation timetaken"), ("time",), ("timetaken",), 1.0),
        ends=True,
    ),
    Format(
        *("CloudWatch Logs Insights", _set("@timestamp @duration"), ("@timestamp",)),
        *(("@duration",), 1e-3),
        ends=True,
        only=("@type", "REPORT"),
        measured=True,
    ),
    Format(
        *("BurstGPT", _set("requesttokens responsetokens"), ("timestamp",), ("elapsedtime",), 1.0),
        whole=False,
    ),
    Format("hey", _set("offset responsetime"), ("offset",), ("responsetime",), 1.0),
    Format("oha", _set("requeststart requestduration"), ("requeststart",), ("requestduration",), 1),
    Format("ab", _set("starttime seconds ctime ttime"), ("seconds",), ("ttime",), 1e-3),
    Format(
        *("vegeta", _set("timestamp latency code"), ("timestamp",), ("latency",), 1e-9),
        any_of=_set("attack seq bytesin bytesout"),
    ),
    Format(
        *("nginx", _set("requesttime"), ("msec", "timeiso8601", "timelocal"), ("requesttime",), 1),
        any_of=_set("msec timeiso8601 timelocal"),
        ends=True,
    ),
    Format(
        *(
            "Application Insights",
            _set("duration"),
            ("timestamp", "timestamputc"),
            ("duration",),
            1e-3,
        ),
        any_of=_INSIGHTS,
    ),
    Format(
        *("Application Insights", _set("timegenerated durationms"), ("timegenerated",)),
        *(("durationms",), 1e-3),
    ),
    Format(
        *("HAProxy", frozenset(), ("timestamp", "time", "t", "tr", "date"), ("ta", "tt"), 1e-3),
        exact=_set("Ta"),
    ),
    Format(
        *("HAProxy", frozenset(), ("timestamp", "time", "t", "date"), ("ta", "tt"), 1e-3),
        exact=_set("Tt"),
    ),
)


def known_format(head: Sequence[str], plain: Sequence[str]) -> Format | None:
    """The format of the tool that wrote a table; None: not known.

    Args:
        head: Names of the columns as written.
        plain: The same in lower case without punctuation.
    """
    there, written = set(plain), {each.strip() for each in head}
    for each in _FORMATS:
        if (
            each.columns <= there
            and each.exact <= written
            and (not each.any_of or each.any_of & there)
            and there.intersection(each.time)
            and there.intersection(each.duration)
        ):
            return each
    return None


# Columns by which a table is known that has no arrivals, and what to give instead.
_NO_ARRIVALS = (
    (
        _set("type name requestcount failurecount"),
        "Locust's statistics of the whole test, without times; give its ..._stats_history.csv",
    ),
    (_set("method name error occurrences"), "Locust's failures; give its ..._stats_history.csv"),
    (
        _set("label samples average"),
        "JMeter's report of the whole test, without times; give the results file (.jtl) as CSV",
    ),
)
_TEXTS = (
    ("Running ", "what wrk prints has no times of requests; use a tool that writes each request"),
    ("Requests      [total", "a report of vegeta has no times; give vegeta encode --to csv"),
    ("Summary:", "a summary has no times of requests; give hey -o csv"),
    ("This is ApacheBench", "what ab prints has no times of requests; give ab -g FILE"),
    ("<?xml", "XML; JMeter writes CSV with jmeter.save.saveservice.output_format=csv"),
    ("<", "HTML or XML, not a recording"),
)


def unusable_table(plain: Sequence[str]) -> str | None:
    """Why a table of a known tool has no arrivals. None: it is not one of those."""
    there = set(plain)
    return next((reason for columns, reason in _NO_ARRIVALS if columns <= there), None)


def unusable_text(first: str) -> str | None:
    """Why a text that a known tool printed has no arrivals, by its first line. None: it may."""
    return next((reason for words, reason in _TEXTS if first.lstrip().startswith(words)), None)
