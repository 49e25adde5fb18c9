"""What tracing a turn costs: with our recorder and encoder, and with OpenTelemetry's SDK.

Spans of one turn with two model calls and one tool, as the pipeline makes them, recorded and
encoded to the bytes of an OTLP request; the request itself is not sent. Processor time a turn,
the least of several rounds; and what a process pays to import it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SPANS = (
    ("authenticate", 0), ("admission", 0), ("opening", 0), ("session", 0), ("intent", 0),
    ("invoke_agent one", 2), ("chat m", 10), ("attempt default", 4), ("execute_tool hours", 4),
    ("chat m", 10), ("attempt default", 4), ("commit", 0),
)  # fmt: skip
ATTRIBUTES = (
    ("gen_ai.operation.name", "chat"), ("gen_ai.provider.name", "openai"),
    ("gen_ai.request.model", "m"), ("gen_ai.request.stream", True),
    ("server.address", "127.0.0.1"), ("server.port", 8080),
    ("gen_ai.usage.input_tokens", 230), ("gen_ai.usage.output_tokens", 40),
    ("gen_ai.response.time_to_first_chunk", 0.31), ("gen_ai.conversation.id", "ses_" + "x" * 22),
)  # fmt: skip


def ours() -> Callable[[int], None]:
    """The recorder of this project."""
    from seawall.telemetry.otlp import encode_spans
    from seawall.telemetry.recorder import RecordedSpan, Recorder

    ended: list[RecordedSpan] = []
    recorder = Recorder(ended.append, sample=1.0, follow=True, content=False)

    def turns(count: int) -> None:
        for _ in range(count):
            root = recorder.begin(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            for name, attributes in SPANS:
                span = root.child(name)
                for key, value in ATTRIBUTES[:attributes]:
                    span.put(key, value)
                span.end()
            for key, value in ATTRIBUTES:
                root.put(key, value)
            root.end()
            if len(ended) >= 512:
                encode_spans(ended, {"service.name": "seawall"}, "1")
                ended.clear()

    return turns


def sdk() -> Callable[[int], None]:
    """OpenTelemetry's SDK with its encoder, without its thread."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.trace import set_span_in_context

    class Collect(SpanProcessor):
        def __init__(self) -> None:
            self.ended: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.ended.append(span)

    collect = Collect()
    provider = TracerProvider(resource=Resource({"service.name": "seawall"}))
    provider.add_span_processor(collect)
    tracer = provider.get_tracer("seawall")

    def turns(count: int) -> None:
        for _ in range(count):
            root = tracer.start_span("turn")
            context = set_span_in_context(root)
            for name, attributes in SPANS:
                span = tracer.start_span(name, context)
                for key, value in ATTRIBUTES[:attributes]:
                    span.set_attribute(key, value)
                span.end()
            for key, value in ATTRIBUTES:
                root.set_attribute(key, value)
            root.end()
            if len(collect.ended) >= 512:
                encode_spans(collect.ended).SerializeToString()
                collect.ended.clear()

    return turns


def measure(made: Callable[[], Callable[[int], None]], *, turns: int, rounds: int) -> float:
    """Milliseconds of processor time a turn, the least of the rounds."""
    run = made()
    run(turns)
    took = []
    for _ in range(rounds):
        began = time.process_time()
        run(turns)
        took.append(time.process_time() - began)
    return min(took) / turns * 1e3


def importing(statement: str, rounds: int) -> float:
    """Milliseconds that a process which has imported the orchestrator pays more for this."""
    base = "import seawall.orchestrator, seawall.composition"
    statement = f"{base}; {statement}"
    took = {base: 1e9, statement: 1e9}
    for _ in range(rounds):
        for each in (base, statement):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", each], check=True)
            took[each] = min(took[each], time.perf_counter() - began)
    return (took[statement] - took[base]) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    turns, rounds = (200, 3) if quick else (2_000, 9)
    figures: dict[str, float] = {}
    ways = {
        "ours": (ours, "import seawall.telemetry.open"),
        "sdk": (
            sdk,
            "from opentelemetry.exporter.otlp.proto.http import trace_exporter",
        ),
    }
    for name, (made, statement) in ways.items():
        try:
            figures[f"{name}_ms_a_turn"] = round(measure(made, turns=turns, rounds=rounds), 4)
        except ImportError as error:
            print(f"{name}: {error}; pip install opentelemetry-exporter-otlp-proto-http")
            continue
        figures[f"{name}_import_ms"] = round(importing(statement, rounds), 1)
        print(
            f"{name}: {figures[f'{name}_ms_a_turn']:.3f} ms a turn of {len(SPANS) + 1} spans, "
            f"import {figures[f'{name}_import_ms']:.0f} ms"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
    main()
