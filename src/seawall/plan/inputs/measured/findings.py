"""What a file with measurements or a bill says."""

from msgspec import Struct

__all__ = ["Findings"]


class Findings(Struct, frozen=True, kw_only=True):
    """Measured values of one file. None, or empty: it has none.

    Attributes:
        source: What it is, with the file's name.
        cpu_ms: Processor time of a request on one processor.
        seconds: Mean duration of a request.
        memory_mb: Of a process that serves a request.
        prices: Effective prices by item, in units of the item.
        approximate: Whether the prices are approximate.
        each: Amounts of a request by field of `PerRequest`.
        currency: Of the prices.
        region: Of the prices.
        architecture: Of the machines that were measured.
    """

    source: str
    cpu_ms: float | None = None
    seconds: float | None = None
    memory_mb: float | None = None
    prices: dict[str, float] = {}
    approximate: bool = False
    each: dict[str, float] = {}
    currency: str = ""
    region: str = ""
    architecture: str = ""
