"""The public names of the planner."""

import subprocess
import sys

import pytest

from seawall import plan


@pytest.mark.parametrize("name", plan.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(plan, name) is not None


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = plan.nothing


def test_importing_the_planner_imports_neither_numba_nor_jinja2() -> None:
    program = "import sys, seawall.plan; print({'numba', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode() == "set()\n"
