"""Workers leave out messages that are not used, and no others."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.messages import send_less


class WorkerInteractor:
    """As pytest-xdist's, as far as it sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def sendevent(self, name: str, **content: Any) -> None:
        self.sent.append((name, content))


def _sent(name: str, verbosity: int = 0, **content: Any) -> bool:
    worker = WorkerInteractor()
    plugins = SimpleNamespace(get_plugins=lambda: {worker})
    config: Any = SimpleNamespace(get_verbosity=lambda: verbosity, pluginmanager=plugins)
    send_less(config)
    worker.sendevent(name, **content)
    assert worker.sent in ([], [(name, content)])
    return bool(worker.sent)


def _report(**different: Any) -> dict[str, Any]:
    usual = {"when": "setup", "outcome": "passed", "duration": 0.001, "user_properties": []}
    return usual | different


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_what_is_as_usual_is_not_sent(when: str) -> None:
    assert not _sent("testreport", data=_report(when=when))
    assert not _sent("logstart", nodeid="a", location=("a", 1, "a"))


@pytest.mark.parametrize(
    "different",
    [
        {"when": "call"},
        {"outcome": "failed"},
        {"outcome": "skipped"},
        {"duration": 0.005},
        {"when": "teardown", "user_properties": [("cpu_seconds", 0.1)]},
    ],
)
def test_other_reports_are_sent(different: dict[str, Any]) -> None:
    assert _sent("testreport", data=_report(**different))


@pytest.mark.parametrize("name", ["logfinish", "runtest_protocol_complete", "workerfinished"])
def test_other_messages_are_sent(name: str) -> None:
    assert _sent(name)


def test_where_each_test_is_listed_all_is_sent() -> None:
    assert _sent("logstart", verbosity=1)
    assert _sent("testreport", verbosity=1, data=_report())
