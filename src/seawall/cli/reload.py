"""`seawall serve --reload`: the server again whenever a file of the project changes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["changed_files", "serve_with_reload", "watched_files"]

_POLL_SECONDS = 0.5
_STOP_SECONDS = 15.0
_SUFFIXES = frozenset({".py", ".toml", ".json", ".yaml", ".yml", ".env"})
_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist", "venv"})
_MOST_FILES = 10_000

Times = dict[Path, int]


def watched_files(folder: Path) -> Times:
    """The project's source and configuration files, with when each was changed.

    Args:
        folder: Its subfolders are included, except for hidden and generated ones.
    """
    times: Times = {}
    for path in _walk(folder):
        try:
            times[path] = path.stat().st_mtime_ns
        except OSError:  # removed meanwhile
            continue
        if len(times) >= _MOST_FILES:
            break
    return times


def changed_files(before: Times, after: Times) -> list[Path]:
    """Files that are new, changed or gone, sorted."""
    either = before.keys() | after.keys()
    return sorted(path for path in either if before.get(path) != after.get(path))


def serve_with_reload(words: list[str], folder: Path) -> int:
    """Run `seawall WORDS` in a process of its own; start it anew when a file changes.

    Args:
        words: The command line, without `--reload`.
        folder: The folder to watch.

    Returns:
        The exit status of the last server, once it was interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    times = watched_files(folder)
    sys.stderr.write(f"Watching {len(times)} files in {folder.resolve()}\n")
    process = _start(words)
    try:
        while True:
            time.sleep(_POLL_SECONDS)
            latest = watched_files(folder)
            changed, times = changed_files(times, latest), latest
            if changed:
                names = ", ".join(str(path.relative_to(folder)) for path in changed[:3])
                more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
                sys.stderr.write(f"Reloading: {names}{more} changed\n")
                _stop(process)
                process = _start(words)
            elif process.poll() is not None:
                # It said why; the next change may repair it.
                sys.stderr.write("The server has ended; waiting for a change\n")
                times = _wait_for_change(folder, times)
                process = _start(words)
    except KeyboardInterrupt:
        return _stop(process)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_dir():
            if not (path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink()):
                yield from _walk(path)
        elif path.suffix in _SUFFIXES:
            yield path


def _wait_for_change(folder: Path, times: Times) -> Times:
    while not changed_files(times, latest := watched_files(folder)):
        time.sleep(_POLL_SECONDS)
    return latest


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is for this process, which passes on a SIGTERM.
    command = [sys.executable, "-m", "seawall", *words]
    # Where the kernel can, the server ends with this process, even if that is killed.
    before = None
    if sys.platform == "linux":
        from seawall.lab.processes import parent_death_signal  # noqa: PLC0415 - not on Windows

        before = parent_death_signal(signal.SIGTERM)
    return subprocess.Popen(command, start_new_session=True, preexec_fn=before)  # noqa: PLW1509, S603 - ourselves, one thread


def _stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
