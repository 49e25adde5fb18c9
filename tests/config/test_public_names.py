"""The public API: what `from seawall import ...` gives, and what `import seawall` costs."""

import subprocess
import sys

import pytest

import seawall
import seawall.errors
import seawall.events


@pytest.mark.parametrize("name", seawall.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(seawall, name) is not None
    assert name in dir(seawall)


def test_what_is_public_where_it_is_defined_is_public_here() -> None:
    for module in (seawall.errors, seawall.events):
        names = {name for name in module.__all__ if not name.islower()}
        assert names <= set(seawall.__all__)


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Orchestra'"):
        seawall.Orchestra  # noqa: B018


def test_the_import_alone_imports_nothing_else() -> None:
    code = "import sys, seawall; print([m for m in sys.modules if m.startswith('seawall.')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
