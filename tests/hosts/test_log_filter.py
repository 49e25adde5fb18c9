"""Repeated messages are suppressed and counted."""

import io
import logging
import time

import pytest

from seawall.hosts.log_filter import FloodFilter


def logger(seconds: float) -> tuple[logging.Logger, io.StringIO]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(FloodFilter(burst=3, seconds=seconds))
    log = logging.Logger("seawall.test")  # noqa: LOG001 - it is to be forgotten with the test
    log.addHandler(handler)
    return log, written


def test_a_repeated_message_passes_a_few_times_whatever_its_arguments() -> None:
    log, written = logger(60.0)
    for number in range(1_000):
        log.warning("model %s answered %d", "default", number)
    log.warning("something else")
    log.error("model %s answered %d", "default", 1)
    assert written.getvalue().splitlines() == [
        "model default answered 0",
        "model default answered 1",
        "model default answered 2",
        "something else",
        "model default answered 1",
    ]


def test_the_next_message_says_how_many_were_suppressed() -> None:
    log, written = logger(0.2)
    for _ in range(10):
        log.warning("100 %% of %(what)s", {"what": "them"})
    time.sleep(0.3)
    log.warning("100 %% of %(what)s", {"what": "them"})
    log.warning("100 %% of %(what)s", {"what": "them"})
    lines = written.getvalue().splitlines()
    assert lines[3:] == ["100 % of them (and 7 more like it before)", "100 % of them"]


def test_the_number_of_counted_messages_is_bounded() -> None:
    log, written = logger(60.0)
    for number in range(2_000):
        log.warning(f"message {number}")  # noqa: G004 - texts that differ are the point
    for _ in range(3):
        log.warning("message 0")  # no longer counted
    assert len(written.getvalue().splitlines()) == 2_003


def test_a_message_with_wrong_arguments_does_not_raise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, _ = logger(0.05)
    for _ in range(10):
        log.warning("%d turns", "many")
    time.sleep(0.1)
    log.warning("%d turns", "many")  # logging itself reports it
    assert "Logging error" in capsys.readouterr().err
