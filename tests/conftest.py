"""Common to the whole suite: async tests, groups, the fast selection, shared servers.

**Async tests** are plain `async def test_x()`. anyio's plugin runs each on an asyncio loop of its
own; a test that leaves a task running fails.

**No test hangs**: after `_most_seconds` it fails where it waits, and the run goes on. What that
does not end, a hang in C or in an async fixture, `faulthandler_timeout` (pyproject.toml) ends with
its worker, whose stacks are printed.

**In parallel** (`make test`), tests that share an expensive fixture stay on one worker
(`tests/groups.py`); what several need and only read is made once (`tests/once.py`). Those of
`_FIRST` begin before other single tests, since they take longest. Those of `_ALONE`, and others
that are marked `alone`, run after all others, one at a time: they measure time, or fill the
machine.

**Long forms** (`make test-long`) are properties with more examples, and the tests and cases that
are marked `long` (`tests/properties.py`); both come with `--hypothesis-profile=long`.

**`--fast`** (`make test-fast`) leaves out test files that start processes, and those of `_SLOW`. It
makes sure of it: starting a process fails, and so does a file of several seconds of CPU time.

**`--cpu`** prints what folders, files and tests cost in CPU time (`tests/cpu_time.py`).
"""

import os

# One thread for each matrix product, as in the product: more of them only wait for each other when
# all processors are busy. To be set before numpy is imported, and for child processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import asyncio
import functools
import gc
import logging
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, NoReturn

import httpcore2
import hypothesis
import pytest

from seawall.hosts.log_filter import FloodFilter
from tests.cpu_time import CpuTimes
from tests.dynamodb_local import require_dynamodb, shared_dynamodb
from tests.forked_workers import fork_workers
from tests.groups import GroupScheduling, write_groups
from tests.messages import send_less
from tests.once import RUN_FOLDER, owner_of_the_run
from tests.parts import DATA
from tests.properties import number_of_examples

# How long an example takes says nothing: machines that test are busy. `--hypothesis-profile=long`
# (`make test-long`) is for a night; `tests.properties` has what heavy properties take of each.
hypothesis.settings.register_profile("short", deadline=None, max_examples=40)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1_000)
hypothesis.settings.load_profile("short")
# Of each HTTP client that a test makes, 30 of 31 ms would be reading the machine's certificates.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
# What Node.js compiles of Playwright and other parts is kept from run to run, as Python's bytecode.
os.environ.setdefault("NODE_COMPILE_CACHE", str(Path(__file__).parents[1] / ".cache/node"))

# Tests, or files of tests, that are marked `alone`.
_ALONE = {
    "cli/test_interrupts.py::test_a_second_interrupt_ends_a_surge_at_once",
    "hosts/test_metrics.py::test_many_scrapers_do_not_delay_turns",
    "hosts/test_non_turn_limiter.py",
    "hosts/test_overload.py::test_a_small_tenant_is_served_beside_a_crowd_of_another",
    "hosts/test_refusal_share.py",
    "hosts/test_rolling.py",
    "lab/test_surge.py::test_a_stall_is_reported_in_full_by_the_open_loop_only",
}
# Tests of ten seconds and more, on no group's worker: they begin first, so that none is the last.
_FIRST = {
    "attack/test_servers_attacked.py::test_no_turn_is_lost_or_done_twice",
    "aws_lambda/test_package.py::test_contents_of_the_package",
    "cli/test_init.py::test_its_own_test_passes",
    "docs/test_docs.py::test_every_code_block_without_a_server_has_the_documented_result",
    "fuzz/test_openapi.py::test_no_check_fails",
    "intents/test_embeddings.py::test_ten_examples_of_banking77",
    "lab/test_compare.py::test_the_same_crowd_is_measured_and_predicted_on_both",
    "models/test_local.py::test_a_real_conversation",
    "store/test_oracle.py::test_tasks_elsewhere",
    "store/test_turns.py::test_all_74_tasks",
    "tools/openapi/test_prism.py::test_every_operation_is_called_as_its_document_says",
}
# Not among the fast tests: files whose text says that they start processes, DynamoDB, and files
# whose tests take two seconds of CPU time and more on a machine that does nothing else.
_STARTS_PROCESSES = re.compile(
    r"\b(subprocess|multiprocessing|pty|running_\w+|LocalFunction|bench\.effects\.servers"
    r"|tests\.(servers|fork_server|attack|aws_lambda\.(running|forked_runtime)|hosts\.conftest"
    r"|lab\.conftest|plan\.browser|parts\.(browser|tabs)))\b"
)
_STARTING = {  # by fixtures and commands, which their text does not show
    "attachments/test_checker.py",
    "cli/test_tools.py",
    "console/test_console_api.py",
    "console/test_logins.py",
    "console/test_pages.py",
    "hosts/test_chat_fields.py",
    "hosts/test_client_tools.py",
    "identity/outbound/test_subject_store.py",
    "identity/outbound/test_token_exchange.py",
    "identity/outbound/test_turns.py",
}
_SLOW = {
    "cli/test_files.py",
    "fuzz/test_upstream_streams.py",
    "hosts/test_chat_fields.py",
    "intents/test_embeddings.py",
    "intents/test_evaluation.py",
    "intents/test_none.py",
    "intents/test_onnx.py",
    "intents/test_training.py",
    "knowledge/test_index.py",
    "knowledge/test_search.py",
    "knowledge/test_tool.py",
    "models/test_attachments.py",
    "models/test_hostile_servers.py",
    "models/test_local.py",
    "models/test_oracles.py",
    "models/test_public_cases.py",
    "models/test_text_frames.py",
    "plan/test_advice.py",
    "plan/test_check.py",
    "plan/test_closed_forms.py",
    "plan/test_containers.py",
    "plan/test_limits.py",
    "plan/test_measured.py",
    "plan/test_model_decision.py",
    "plan/test_model_quota.py",
    "plan/test_plan_command.py",
    "plan/test_price_lists.py",
    "plan/test_remedies.py",
    "plan/test_report.py",
    "plan/test_simfaas.py",
    "plan/test_stationarity.py",
    "plan/test_thinning.py",
    "plan/test_traces.py",
    "ship/test_sized.py",
    "ship/test_written.py",
    "storage/test_any_sequence.py",
    "storage/test_hostile_values.py",
    "store/test_interruptions.py",
    "store/test_oracle.py",
    "tools/openapi/test_service.py",
    "tools/openapi/test_styles.py",
    "tools/test_json_schema.py",
}
_FAST_CPU_SECONDS = 5.0  # of a file; machines that are shared count more than it takes alone

# Of a set-up, test or clean-up, in the short form and the long: several times what they take.
_MOST_SECONDS = (300, 3_000)
_ENDING_SECONDS = 1.0
_HERE = Path(__file__).parent
_left_open: list[str] = []  # connections of the test's event loops
_took: defaultdict[Path, float] = defaultdict(float)  # CPU time, by files


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="quick tests without processes only")
    parser.addoption("--cpu", action="store_true", help="print the CPU time of tests")


def pytest_configure(config: pytest.Config) -> None:
    """One folder for what all processes of this run share; workers inherit its name."""
    _check_tables()
    if config.getoption("--cpu"):
        config.pluginmanager.register(CpuTimes())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in what a shell runs in the background; commands under test would ignore it, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if RUN_FOLDER not in os.environ:
        os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix="seawall-tests-")
        config.add_cleanup(_remove_run_folder)


def _remove_run_folder() -> None:
    shutil.rmtree(os.environ.pop(RUN_FOLDER), ignore_errors=True)


def pytest_report_header() -> str:
    if DATA.is_dir():
        return f"test data: {DATA}"
    return f"test data: {DATA} does not exist; tests that need it are skipped"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a test that could be selected are not imported, with --fast and `-m alone`."""
    fast, alone = config.getoption("--fast"), config.getoption("-m") == "alone"
    if not (fast or alone) or not collection_path.name.startswith("test_"):
        return None
    relative = collection_path.relative_to(_HERE).as_posix()
    text = collection_path.read_text(encoding="utf-8")
    if fast:
        return True if relative in _SLOW | _STARTING or _STARTS_PROCESSES.search(text) else None
    listed = any(name.partition("::")[0] == relative for name in _ALONE)
    return None if listed or "mark.alone" in text else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not _names(item).isdisjoint(_ALONE):
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: _names(item).isdisjoint(_FIRST))
    if hypothesis.settings.get_current_profile_name() != "long":
        _deselect(config, items, {item for item in items if item.get_closest_marker("long")})
    if config.getoption("--fast"):
        _deselect(config, items, {i for i in items if _is_alone(i) or _needs_dynamodb(i)})


def _deselect(config: pytest.Config, items: list[pytest.Item], left_out: set[pytest.Item]) -> None:
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    if sys.platform == "linux" and len(specs) > 1:
        fork_workers(config, specs)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays, so no collection of garbage looks at it, now or later.

    Full collections are rarer than by default, a tenth: they look at what all tests before have
    left, and took 7 % of the CPU time of 812 tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(700, 10, 100)
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        write_groups(session.items)
        send_less(session.config)


def _names(item: pytest.Item) -> set[str]:
    """Of the test and its file, as in the tables above."""
    file = _name_of(item.path)
    return {file, f"{file}::{getattr(item, 'originalname', '')}"}


@functools.cache
def _name_of(file: Path) -> str:
    return file.relative_to(_HERE).as_posix()


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def _check_tables() -> None:
    """Names of files and tests in the tables above that do not exist are mistakes."""
    for name in _ALONE | _FIRST | _SLOW | _STARTING:
        file, _, test = name.partition("::")
        path = _HERE / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text(encoding="utf-8")):
            raise pytest.UsageError(f"tests/conftest.py: there is no {name}")


def _needs_dynamodb(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    named = parameters is not None and "dynamodb" in parameters.params.values()
    return named or "dynamodb" in getattr(item, "fixturenames", ())


class TookTooLong(BaseException):
    """Raised where a test waits. No Exception: what handles those, as hypothesis does, goes on."""


def _most_seconds() -> int:
    return number_of_examples(*_MOST_SECONDS)


@contextmanager
def _bounded(what: str) -> Iterator[None]:
    def end(*_: object) -> None:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return  # raising would end the loop, not what it runs
        raise TookTooLong(f"{what} took more than {_most_seconds()} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, _most_seconds())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    _unfilter_logs()
    with _bounded("the set-up"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with _bounded("the test"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    with _bounded("the clean-up"):
        result = yield
    left, _left_open[:] = [*_left_open], []
    assert not left, f"connections left open: {left}"
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """No garbage is collected meanwhile.

    What is freed may have a traceback formatted, which parses source, as the report does; Python
    3.11 fails if one begins within the other: https://github.com/python/cpython/issues/106905.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Async tests fail if they leave tasks running; with --fast, files that are not fast fail."""
    _check_leftovers(pyfuncitem)
    began = time.process_time()
    result = yield
    if pyfuncitem.config.getoption("--fast"):
        _took[pyfuncitem.path] += time.process_time() - began
        if (took := _took[pyfuncitem.path]) > _FAST_CPU_SECONDS:
            pytest.fail(f"its file took {took:.1f} s of CPU time: add it to _SLOW", pytrace=False)
    return result


def _check_leftovers(item: pytest.Function) -> None:
    handle = getattr(item.obj, "hypothesis", None)
    if handle is not None and iscoroutinefunction(handle.inner_test):
        handle.inner_test = _without_leftovers(handle.inner_test)
    elif handle is None and iscoroutinefunction(item.obj):
        item.obj = _without_leftovers(item.obj)


def _without_leftovers(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def run(*arguments: object, **named: object) -> None:
        before = asyncio.all_tasks()
        try:
            async with asyncio.timeout(_most_seconds() - 5) as bound:  # so that it can clean up
                await test(*arguments, **named)
        except TimeoutError as error:
            if bound.expired():
                raise TookTooLong("the test was cancelled") from error
            raise
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        if left:  # of a connection that was closed just now, say, whose handler hears of it next
            _, left = await asyncio.wait(left, timeout=_ENDING_SECONDS)
        assert not left, f"tasks left running: {left}"

    return run


@pytest.fixture(scope="session", autouse=True)
def closed_loops() -> Iterator[None]:
    """A test fails if its event loop ends with open connections.

    Otherwise the warning comes when they are collected, and blames another test.
    """
    close = asyncio.SelectorEventLoop.close

    def checked(loop: Any) -> None:
        if not (loop.is_closed() or loop.is_running()) and opened(loop):
            loop.run_until_complete(asyncio.sleep(0))  # those that are closing close
            for each in opened(loop):
                _left_open.append(repr(each))
                each.abort()
            loop.run_until_complete(asyncio.sleep(0))
        close(loop)

    def opened(loop: Any) -> list[Any]:
        return [each for each in getattr(loop, "_transports", {}).values() if each._sock]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "close", checked)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --fast, tests cannot start processes."""
    if not request.config.getoption("--fast"):
        yield
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("starts a process, so it does not belong to the fast tests", pytrace=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(os, "posix_spawn", refuse)
        patch.setattr(os, "fork", refuse)
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def dynamodb() -> str:
    """The URL of one DynamoDB Local for the whole run; every test makes its own table."""
    require_dynamodb()
    return shared_dynamodb(owner_of_the_run())


def _unfilter_logs() -> None:
    """Commands that earlier tests ran in this process have left no filter on what is captured."""
    for handler in logging.getLogger().handlers:
        for each in list(handler.filters):
            if isinstance(each, FloodFilter):
                handler.removeFilter(each)
