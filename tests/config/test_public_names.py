"""The public API: what `from seawall import ...` gives, and what `import seawall` costs."""

import subprocess
import sys

import pytest

import seawall
import seawall.errors
import seawall.events


@pytest.mark.parametrize("name", seawall.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(seawall, name) is not None
    assert name in dir(seawall)


def test_names_that_are_public_in_their_module_are_exported() -> None:
    for module in (seawall.errors, seawall.events):
        names = {name for name in module.__all__ if not name.islower()}
        assert names <= set(seawall.__all__)


def test_other_names_are_not_exported() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Orchestra'"):
        seawall.Orchestra  # noqa: B018


def test_the_import_alone_imports_nothing_else() -> None:
    code = "import sys, seawall; print([m for m in sys.modules if m.startswith('seawall.')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
