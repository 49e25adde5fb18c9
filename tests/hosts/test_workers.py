"""Workers that freeze, are blocked, or die, and a supervisor that does."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.hosts.test_interruptions import eventually
from tests.hosts.tool_server import (
    ask,
    log_of,
    pid_of,
    stopped,
    tool_server,
    workers,
)
from tests.parts import require
from tests.servers import ROOT, ServerProcess

TWO = {"SERVER__WORKERS": "2", "SERVER__DRAIN_SECONDS": "2"}


def ready(server: ServerProcess) -> bool:
    """Whether all workers take turns; a worker that is frozen may be the one that is asked."""
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{server.url}/readyz", timeout=0.5).status_code == 200
    return False


def block(server: ServerProcess, seconds: float) -> None:
    steps = [[["block", json.dumps({"seconds": seconds})]], "done"]
    with suppress(httpx2.HTTPError):
        body = {"text": json.dumps({"attempts": [steps]})}
        httpx2.post(f"{server.url}/v1/turns", json=body, timeout=0.5)


def test_a_frozen_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__FROZEN_SECONDS="2", **TWO) as server:
        frozen, other = sorted(workers(server))
        with stopped(frozen):
            eventually(lambda: frozen not in workers(server), 20)
            eventually(lambda: len(workers(server)) == 2 and ready(server), 30)
        assert other in workers(server)
        assert {pid_of(server) for _ in range(12)} <= workers(server)
        log = log_of(tmp_path)
        assert f"(process {frozen}) is frozen: killing it" in log
        assert "ended by signal 9 (SIGKILL): it was frozen for 2 s; another starts in 1 s" in log
        assert server.stop() == 0


def test_a_blocked_loop_is_logged_with_its_stack_and_replaced(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__FROZEN_SECONDS="4", **TWO) as server:
        before = workers(server)
        block(server, 3_600)
        eventually(lambda: "the event loop has been blocked for" in log_of(tmp_path), 10)
        eventually(lambda: len(workers(server) & before) == 1, 10)
        eventually(lambda: len(workers(server)) == 2 and ready(server), 30)
        log = log_of(tmp_path)
        assert "tool_app.py" in log
        assert "time.sleep(seconds)" in log
        assert log.count("the event loop has been blocked") == 1


def test_a_single_worker_logs_the_stack_and_continues(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__FROZEN_SECONDS="2") as server:
        before = pid_of(server)
        block(server, 4)
        eventually(lambda: "time.sleep(seconds)" in log_of(tmp_path), 10)
        eventually(lambda: ready(server), 10)
        assert pid_of(server) == before


def test_a_suspended_machine_kills_no_worker(tmp_path: Path) -> None:
    with tool_server(tmp_path, SERVER__FROZEN_SECONDS="2", **TWO) as server:
        before = workers(server)
        with stopped(*before, server.process.pid):
            time.sleep(4)
            os.kill(server.process.pid, signal.SIGCONT)  # the supervisor wakes first
            time.sleep(0.7)
        time.sleep(2.5)
        assert workers(server) == before
        assert ready(server)
        assert "frozen" not in log_of(tmp_path)


def test_killed_workers_are_replaced_with_backoff_while_others_serve(tmp_path: Path) -> None:
    with tool_server(tmp_path, **TWO) as server:
        first, other = sorted(workers(server))
        answered, failed = [], []
        over = threading.Event()

        def come() -> None:
            with httpx2.Client(base_url=server.url, timeout=10) as client:
                while not over.is_set():
                    try:
                        answered.append(client.get("/livez").status_code)
                    except httpx2.HTTPError as error:
                        failed.append(error)
                    time.sleep(0.01)

        def kill(process: int) -> int:
            os.kill(process, signal.SIGKILL)
            eventually(lambda: process not in workers(server), 5)
            eventually(lambda: len(workers(server)) == 2, 10)
            (replaced,) = workers(server) - {other}
            return replaced

        client = threading.Thread(target=come)
        client.start()
        kill(kill(first))
        over.set()
        client.join()
        assert len(failed) <= 2, failed  # what a killed worker had in its hands
        assert len(answered) > 10
        assert other in workers(server)
        log = log_of(tmp_path)
        assert f"(process {first}) was ended by signal 9 (SIGKILL): the kernel does so" in log
        assert "another starts in 1 s" in log
        assert "another starts in 2 s" in log
        eventually(lambda: ready(server), 30)


def free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_a_server_starts_at_once_where_the_supervisor_was_killed(tmp_path: Path) -> None:
    """Its workers close the port without delay and finish their turns."""
    port = str(free_port())
    settings = TWO | {"SERVER__PORT": port, "SERVER__DRAIN_SECONDS": "20"}
    delayed = settings | {"SERVER__SHUTDOWN_DELAY_SECONDS": "60"}
    answers: list[httpx2.Response] = []
    steps = [[["wait", '{"seconds": 0.9}']]] * 10
    with tool_server(tmp_path, **delayed) as victim:
        old = workers(victim)
        turn = threading.Thread(
            target=lambda: answers.append(ask(victim, [*steps, "finished in order"]))
        )
        turn.start()
        eventually(
            lambda: "seawall_turns_in_flight 1.0" in httpx2.get(f"{victim.url}/metrics").text, 10
        )
        victim.process.kill()
        victim.process.wait()
        # Its own end is not the subject: it need not wait.
        settings["SERVER__SHUTDOWN_DELAY_SECONDS"] = "0"
        with tool_server(tmp_path, **settings) as server:
            assert not answers  # the old turn still runs
            assert pid_of(server) in workers(server)
            turn.join()
            assert answers[0].status_code == 200, answers[0].text
            assert answers[0].json()["text"] == "finished in order"
            eventually(lambda: not any(Path(f"/proc/{each}").exists() for each in old), 10)


@contextmanager
def tiny_folder(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    require("" if not mounted.returncode else f"cannot mount: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_space_for_metrics_at_start(tmp_path: Path) -> None:
    with (
        tiny_folder(tmp_path / "full", "64k") as full,
        tool_server(tmp_path, TMPDIR=str(full), **TWO) as server,
    ):
        before = workers(server)
        assert {pid_of(server) for _ in range(16)} <= before
        assert httpx2.get(f"{server.url}/metrics").status_code == 200
        assert workers(server) == before
        assert 1 <= log_of(tmp_path).count("no space for metrics") <= 2  # once a worker


def test_the_space_for_metrics_runs_out_later(tmp_path: Path) -> None:
    with (
        tiny_folder(tmp_path / "full", "2m") as full,
        tool_server(tmp_path, TMPDIR=str(full), **TWO) as server,
    ):
        before = workers(server)
        with suppress(OSError), (full / "rest").open("wb", buffering=0) as rest:
            while True:
                rest.write(b"x" * 4_096)
        assert {pid_of(server) for _ in range(16)} <= before
        text = httpx2.get(f"{server.url}/metrics").text
        assert 'seawall_turns_total{agent="only",outcome="completed"} 16.0' in text
        assert workers(server) == before


def test_a_file_of_metrics_that_cannot_grow(tmp_path: Path) -> None:
    """In a process of its own, which the kernel ends where a page cannot be had."""
    code = """
import sys
from seawall.telemetry.metric_files import MetricFile
file = MetricFile(sys.argv[1])
for number in range(4_000):
    file.write_value(f"a key with the number {number}", float(number), 0.0)
assert file.read_value("a key with the number 3999") == (3999.0, 0.0)
assert len(list(file.read_all_values())) == 4_000
kept = {key for key, *_ in MetricFile.read_all_values_from_file(sys.argv[1])}
assert "a key with the number 0" in kept
print(len(kept))
"""
    with tiny_folder(tmp_path / "full", "100k") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, str(full / "counter_0.db")],
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert 500 < int(done.stdout) < 4_000
    assert b"no space for metrics" in done.stderr


def test_a_replacement_worker_continues_the_counts(tmp_path: Path) -> None:
    with tool_server(tmp_path, **TWO) as server:
        for _ in range(2):
            pid_of(server)
        for each in workers(server):
            os.kill(each, signal.SIGKILL)
        eventually(lambda: ready(server), 30)
        pid_of(server)
        text = httpx2.get(f"{server.url}/metrics").text
        assert 'seawall_turns_total{agent="only",outcome="completed"} 3.0' in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_lets_turns_finish(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As Ctrl-C in a terminal is one, and systemd's SIGTERM to a control group."""
    answers: list[httpx2.Response] = []
    steps = [[["wait", '{"seconds": 0.9}']]] * 2
    with tool_server(tmp_path, **TWO | {"SERVER__DRAIN_SECONDS": "20"}) as server:
        turn = threading.Thread(target=lambda: answers.append(ask(server, [*steps, "finished"])))
        turn.start()
        eventually(
            lambda: "seawall_turns_in_flight 1.0" in httpx2.get(f"{server.url}/metrics").text, 10
        )
        for process in (*workers(server), server.process.pid):
            os.kill(process, number)
        assert server.process.wait(20) == 0
        turn.join()
        assert answers[0].status_code == 200, answers[0].text


def test_a_second_signal_skips_the_waits_of_all_workers(tmp_path: Path) -> None:
    answers: list[httpx2.Response] = []
    steps = [[["wait", '{"seconds": 0.9}']]] * 12
    with tool_server(tmp_path, **TWO | {"SERVER__DRAIN_SECONDS": "20"}) as server:
        turn = threading.Thread(target=lambda: answers.append(ask(server, [*steps, "finished"])))
        turn.start()
        eventually(
            lambda: "seawall_turns_in_flight 1.0" in httpx2.get(f"{server.url}/metrics").text, 10
        )
        server.process.terminate()
        time.sleep(0.5)
        server.process.terminate()
        assert server.process.wait(6) == 0
        turn.join()
        assert answers[0].json()["code"] == "server-stopping"


def test_a_worker_that_ends_before_it_is_ready_is_a_failed_start(tmp_path: Path) -> None:
    """Whatever its status says."""
    (tmp_path / "ending.py").write_text(
        "import multiprocessing, os\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    os._exit(0)\n"
        "from tests.hosts.tool_app import app\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "seawall", "serve", "ending:app", "--port", "0", "--workers", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "a worker ended with status 0 before it was ready" in done.stderr
