"""`/openapi.json` is correct: Schemathesis finds no response that contradicts it."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties import number_of_examples
from tests.servers import ROOT, ServerProcess, running_model, running_server

KEY = "sw_a-key-for-tests"
# Values at and beyond each bound of the schema, and calls one after the other; in the long form
# random ones too, and all values of a wrong type.
_PHASES = ("coverage,stateful", "coverage,fuzzing,stateful")[number_of_examples(0, 1)]
_EXAMPLES = number_of_examples(3, 100)
_HOOKS = ("tests.fuzz.openapi_short", "tests.fuzz.openapi_checks")[number_of_examples(0, 1)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys = f'[{{sha256 = "{digest}", tenant = "acme", subject = "shop"}}]'
    with (
        running_model("--first-token", "0", "--duration", "0", "--chunks", "2") as model,
        running_server(
            tmp_path,
            model,
            SERVER__WORKERS="1",
            IDENTITY__API_KEYS=keys,
            BLOBS__PATH=str(tmp_path / "files"),
        ) as server,
    ):
        yield server


@pytest.mark.hypothesis
def test_no_check_fails(server: ServerProcess, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/openapi.json",
            f"--header=Authorization: Bearer {KEY}",
            "--exclude-checks=positive_data_acceptance,negative_data_rejection,use_after_free",
            "--checks=all",
            f"--phases={_PHASES}",
            f"--max-examples={_EXAMPLES}",
            "--no-color",
            "--generation-database=none",
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # No more: all variables are read for each request, to find proxies. What Hypothesis knows
        # of Unicode is kept with that of other tests: it takes more than a second to find out.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),
            "SCHEMATHESIS_HOOKS": _HOOKS,
            "PYTHONPATH": str(ROOT),
        },
        timeout=3_600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", done.stdout)
    assert found is not None, done.stdout
    assert found[1] == found[2] == found[3], done.stdout
