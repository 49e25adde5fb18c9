"""State files of the fleets on this machine, by which each can be torn down, even after a crash."""

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, SeawallError
from seawall.lab.processes import kill_processes_with_mark, processes_with_mark

__all__ = [
    "FleetState",
    "classifier_cache_path",
    "clean_up",
    "list_fleets",
    "load_state",
    "log_path",
    "process_start_ticks",
    "save_state",
    "tear_down",
]

_STOP_SECONDS = 40.0


class FleetState(Struct, frozen=True, kw_only=True):
    """A fleet that was started.

    Attributes:
        name: By which users refer to it.
        mark: In the environment of all its processes; also the name of its DynamoDB table.
        pid: Of the process that runs it.
        born: Start of that process in clock ticks since boot, as process ids are reused.
        folder: Its temporary folder.
        title: The fleet in a few words.
        url: Of the balancer or the local Lambda.
        model: URL of the model.
        tokens: Path of the file of tokens.
        endpoint: Of the DynamoDB with its table; empty for SQLite.
        region: Of the same.
        notes: Limitations on this machine.
    """

    name: str
    mark: str
    pid: int
    born: int
    folder: str
    title: str = ""
    url: str = ""
    model: str = ""
    tokens: str = ""
    endpoint: str = ""
    region: str = ""
    notes: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether the process that runs it is alive."""
        return process_start_ticks(self.pid) == self.born


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "") or str(Path.home() / ".local" / "state")
    return Path(base) / "seawall" / "lab"


def _state_path(name: str) -> Path:
    if not re.fullmatch(r"[\w-]{1,64}", name, re.ASCII):
        raise ConfigError(f"--name: {name!r} must be of letters, digits, - and _")
    return _state_folder() / f"{name}.json"


def save_state(state: FleetState) -> None:
    """Write the state file atomically, readable only by its owner."""
    path = _state_path(state.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(state))
    draft.chmod(0o600)
    draft.replace(path)


def classifier_cache_path() -> Path:
    """Path of the trained classifier, shared by fleets, as in a package for Lambda."""
    _state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    return _state_folder() / "classifier"


def log_path(name: str) -> Path:
    """Path of the log of a detached fleet."""
    path = _state_path(name).with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def load_state(name: str) -> FleetState | None:
    """The state of a fleet; None if there is no such fleet."""
    try:
        return msgspec.json.decode(_state_path(name).read_bytes(), type=FleetState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def list_fleets() -> list[FleetState]:
    """The states of all fleets."""
    folder = _state_folder()
    names = sorted(each.stem for each in folder.glob("*.json")) if folder.is_dir() else []
    return [found for name in names if (found := load_state(name)) is not None]


def clean_up(*, seconds: float = 0.0, report: Callable[[str], None] = lambda _: None) -> None:
    """Remove what crashed fleets without running processes have left.

    Args:
        seconds: Minimum age of their state files.
        report: Called with a line for each.
    """
    folder = _state_folder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with suppress(OSError):  # removed by another command
            if time.time() - path.stat().st_mtime < seconds:
                continue
            state = load_state(path.stem)
            if state is None:
                path.unlink()
                report(f"{path.stem}: its state file is invalid; removed")
            elif not state.alive and not processes_with_mark(state.mark):
                tear_down(state, report)
                report(f"{state.name}: had crashed; leftovers removed")


def tear_down(state: FleetState, report: Callable[[str], None] = lambda _: None) -> int:
    """End a fleet: ask the process that runs it to stop, then kill and remove what is left.

    Must not be called on an event loop.

    Args:
        state: Of the fleet.
        report: Called with what could not be removed.

    Returns:
        The number of processes that had to be killed.
    """
    if state.pid != os.getpid() and state.alive:
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while process_start_ticks(state.pid) == state.born and time.monotonic() < deadline:
            time.sleep(0.1)
    killed = kill_processes_with_mark(state.mark)
    if state.endpoint:
        # Imported only where there is a table.
        from seawall.lab.fleet.dynamodb_table import delete_table  # noqa: PLC0415

        try:
            asyncio.run(delete_table(state.endpoint, state.mark, state.region))
        except SeawallError as error:
            report(f"note: {error}")
    folder = Path(state.folder)
    if folder.name.startswith("seawall-lab-"):
        shutil.rmtree(folder, ignore_errors=True)
    for group in Path("/sys/fs/cgroup").glob(f"**/{state.mark}-*"):
        with suppress(OSError):
            group.rmdir()
    _state_path(state.name).unlink(missing_ok=True)
    return killed


def process_start_ticks(pid: int) -> int:
    """Start of a process in clock ticks since boot; 0 for none or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
