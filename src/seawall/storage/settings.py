"""Settings of sessions."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["SessionSettings"]

_CENTURY_SECONDS = 100 * 365 * 86_400.0  # databases do not store infinity


class SessionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where sessions are stored, for how long, and how much history a model is shown.

    Attributes:
        store: "sqlite", one file for the processes of one machine; or "dynamodb", one table for all
            servers.
        path: The SQLite file.
        table: The DynamoDB table.
        region: Of DynamoDB; empty for the environment's.
        endpoint: Of DynamoDB; empty for the region's.
        create_table: Create the table if there is none.
        connections: Open to DynamoDB at most, in one process.
        history_turns: Earlier turns included in a prompt, at most.
        history_tokens: Their tokens, at most, as estimated.
        ttl_seconds: A session that was not used for so long expires.
        when_busy: Whether a turn waits for another turn of its session, or is refused at once.
        busy_seconds: How long it waits at most.
        lease_seconds: How long a turn's lease of its session lasts without renewal; it is renewed
            every third of that. 0: no leases; of two concurrent turns, the second to finish is
            refused, and tools must not change anything.
        background_seconds: An interrupted background turn is run again until so long after it was
            accepted.
        background_attempts: And so many times at most.
        orphan_scan_seconds: How often a process scans for such turns; 0: never. Needs a lease.
    """

    store: Literal["sqlite", "dynamodb"] = "sqlite"
    path: Annotated[str, Meta(min_length=1)] = "seawall.db"
    table: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}$")] = "seawall-sessions"
    region: str = ""
    endpoint: str = ""
    create_table: bool = False
    connections: Annotated[int, Meta(ge=1, le=4_096)] = 128
    history_turns: Annotated[int, Meta(ge=0, le=1_000)] = 20
    history_tokens: Annotated[int, Meta(ge=0)] = 6_000
    ttl_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 30 * 86_400.0
    when_busy: Literal["wait", "refuse"] = "wait"
    busy_seconds: Annotated[float, Meta(ge=0, le=_CENTURY_SECONDS)] = 15.0
    lease_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 20.0
    background_seconds: Annotated[float, Meta(gt=0, le=_CENTURY_SECONDS)] = 3_600.0
    background_attempts: Annotated[int, Meta(ge=1)] = 5
    orphan_scan_seconds: Annotated[float, Meta(ge=0, le=_CENTURY_SECONDS)] = 5.0
