"""Common to tests of commands."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _modules_of_configurations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules beside a configuration are imported by name: those of other tests are forgotten."""
    before = sys.modules.copy()
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name in sys.modules.keys() - before.keys():
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]
