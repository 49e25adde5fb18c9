"""An hour of a model provider with every kind of fault, as a fault script."""

from collections.abc import Iterator

__all__ = ["hour"]

_MINUTE = 60.0
# From minute, until minute, and the rule that applies then.
_TROUBLE: tuple[tuple[float, float, dict[str, object]], ...] = (
    (2, 5, {"kind": "throttle", "probability": 0.3, "retry_after": 1.0}),
    (7, 9, {"kind": "error", "status": 500, "probability": 0.2}),
    (11, 13, {"kind": "error", "status": 503}),
    (16, 18, {"kind": "hang", "at": "before-head", "probability": 0.3}),
    (20, 22, {"kind": "hang", "at": "after-head", "probability": 0.2}),
    (24, 26, {"kind": "hang", "at": "in-stream", "chunks": 5, "probability": 0.1}),
    (28, 30, {"kind": "malformed", "chunks": 3, "probability": 0.2}),
    (32, 34, {"kind": "stream-error", "chunks": 0, "probability": 0.2}),
    (36, 38, {"kind": "truncate", "chunks": 4, "probability": 0.1}),
    (40, 42, {"kind": "drop", "at": "before-head", "probability": 0.5}),
    (44, 46, {"kind": "reset", "at": "in-stream", "chunks": 2, "probability": 0.1}),
    (48, 50, {"kind": "slow", "first_factor": 5.0, "factor": 1.0}),
    (52, 54, {"kind": "error", "status": 529}),
    (56, 58, {"kind": "hang", "at": "before-head", "probability": 0.05}),
    (56, 58, {"kind": "error", "status": 502, "probability": 0.05}),
    (56, 58, {"kind": "reset", "at": "in-stream", "chunks": 8, "probability": 0.05}),
)


def hour(*, seconds: float, model: str, first: float) -> list[dict[str, object]]:
    """The rules of the hour for one model, compressed to `seconds`, from second `first` on."""
    return list(_rules(seconds / (60 * _MINUTE), model, first))


def _rules(scale: float, model: str, first: float) -> Iterator[dict[str, object]]:
    for begin, end, rule in _TROUBLE:
        window = {
            "from": round(first + begin * _MINUTE * scale, 3),
            "until": round(first + end * _MINUTE * scale, 3),
        }
        yield rule | window | {"model": model}
