"""The span of a turn."""

from collections.abc import Generator
from contextlib import contextmanager

from seawall.pipeline.report import TurnReport
from seawall.spans import Span, Tracer, current_span, incoming_trace
from seawall.turn import TurnRequest

__all__ = ["describe_outcome", "turn_span"]


@contextmanager
def turn_span(tracer: Tracer, request: TurnRequest) -> Generator[Span, None, None]:
    """The span of a turn, current while the block runs."""
    span = tracer.begin(incoming_trace.get())
    span.put("seawall.turn", request.id)
    span.put("seawall.background", request.background)
    token = current_span.set(span)
    try:
        yield span
    finally:
        current_span.reset(token)
        span.end()


def describe_outcome(span: Span, report: TurnReport) -> None:
    """What came of a turn, without anything that was said in it."""
    span.put("seawall.outcome", report.outcome)
    span.put("seawall.agent", report.agent)
    span.put("seawall.intent", report.intent or "none")
    span.put("seawall.intent_by", report.intent_by)
    span.put("seawall.cached", report.cached)
    span.put("gen_ai.usage.input_tokens", report.usage.prompt_tokens)
    span.put("gen_ai.usage.output_tokens", report.usage.completion_tokens)
    if "first_text" in report.timings:
        span.put("seawall.first_text", report.timings["first_text"] / 1e3)
