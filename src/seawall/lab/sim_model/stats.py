"""What the simulated model counts."""

from msgspec import Struct, field

__all__ = ["SimStats"]


class SimStats(Struct):
    """Counts since the start; `open_streams` and `connections` are the present.

    requests: for completions; each is either refused or started, and what was started is open,
    completed, cancelled by the client or broken by a fault. accepted: connections, ever.
    models: requests by the name of the model. faults: those given, by kind; limits by their name.
    """

    open_streams: int = 0
    peak_streams: int = 0
    requests: int = 0
    refused: int = 0
    started: int = 0
    completed: int = 0
    cancelled: int = 0
    broken: int = 0
    connections: int = 0
    peak_connections: int = 0
    accepted: int = 0
    models: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    def count_started(self) -> None:
        """A request begins to be answered."""
        self.started += 1
        self.open_streams += 1
        self.peak_streams = max(self.peak_streams, self.open_streams)

    def count_connection(self) -> None:
        """A connection was accepted."""
        self.accepted += 1
        self.connections += 1
        self.peak_connections = max(self.peak_connections, self.connections)

    def count_fault(self, kind: str) -> None:
        """A fault was given."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
