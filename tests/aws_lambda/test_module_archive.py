"""Modules from one archive: what is imported is as without it."""

import compileall
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from seawall.hosts.aws_lambda.module_archive import archive_name
from seawall.ship.module_archive import write_archive
from tests.servers import ROOT

TAG = sys.implementation.cache_tag
FILES = {
    "single.py": "name = 'single'",
    "package/__init__.py": "from package import inner\nname = 'package'",
    "package/inner.py": "text = open(__file__.replace('inner.py', 'a.txt')).read()",
    "package/a.txt": "beside",
    "spread/part.py": "name = 'spread'",
    "both/__init__.py": "name = 'package'",
    "both.py": "name = 'module'",
    "wrong.py": "raise ValueError('here')",
    "json.py": "name = 'ours'",
}
USE = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from seawall.hosts.aws_lambda.module_archive import use_archive
root = sys.argv[1]
sys.path.insert(0, root)
print(use_archive(root))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package with its archive, whose sources have changed since."""
    root = tmp_path / "root"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    compiled = compileall.compile_dir(
        root, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )
    assert compiled
    assert write_archive(root, TAG)
    for path in root.rglob("*.pyc"):
        path.unlink()
    return root


def run(root: Path, script: str, *options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-B", *options, "-c", USE + script, str(root)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_modules_come_from_the_archive(tree: Path) -> None:
    for name in ("single.py", "package/__init__.py", "spread/part.py"):
        (tree / name).write_text("raise AssertionError('read from its file')")
    script = (
        "import single, package, spread.part\nprint(single.name, package.name, spread.part.name)"
    )
    assert run(tree, script) == ["True", "single package spread"]


def test_files_beside_a_module_are_found(tree: Path) -> None:
    script = """
import package, importlib.resources
print(package.inner.text, (importlib.resources.files('package') / 'a.txt').read_text())
print(package.__path__ == [f'{root}/package'], package.inner.__spec__.cached is not None)
"""
    assert run(tree, script)[1:] == ["beside beside", "True True"]


def test_the_order_is_that_of_python(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "single.py").write_text("name = 'earlier'")
    script = f"""
sys.path.insert(0, {str(tmp_path / "earlier")!r})
import single, both, json
print(single.name, both.name, json.name)
"""
    assert run(tree, script)[1:] == ["earlier package ours"]


def test_a_compiled_module_takes_precedence(tree: Path) -> None:
    (tree / "single.so").write_bytes(b"")
    compileall.compile_dir(tree, quiet=1)
    write_archive(tree, TAG)
    script = """
try:
    import single
except ImportError as error:
    print(error.path.rpartition("/")[2])
"""
    assert run(tree, script)[1:] == ["single.so"]


def test_a_compiled_package_takes_precedence(tree: Path) -> None:
    (tree / "single").mkdir()
    (tree / "single" / "__init__.so").write_bytes(b"")
    compileall.compile_dir(tree, quiet=1)
    write_archive(tree, TAG)
    script = """
try:
    import single
except ImportError as error:
    print(error.path.rpartition("/single/")[2])
"""
    assert run(tree, script)[1:] == ["__init__.so"]


def test_what_the_archive_lacks_is_found(tree: Path) -> None:
    (tree / "package" / "late.py").write_text("name = 'late'")
    (tree / "another").mkdir()
    (tree / "another" / "__init__.py").write_text("name = 'another'")
    script = """
import package.late, another
print(package.late.name, another.name)
try:
    import package.missing
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(tree, script)[1:] == ["late another", "package.missing"]


def test_tracebacks_have_their_lines(tree: Path) -> None:
    script = """
import traceback
try:
    import wrong
except ValueError:
    print("raise ValueError('here')" in traceback.format_exc())
"""
    assert run(tree, script)[1:] == ["True"]


def test_code_knows_the_folder_that_it_is_in(tree: Path, tmp_path: Path) -> None:
    moved = tree.rename(tmp_path / "moved")
    script = """
import package.inner, single
print(single.__file__ == f'{root}/single.py')
import wrong
"""
    with pytest.raises(AssertionError, match=f'File "{moved}/wrong.py", line 1'):
        run(moved, script)


def test_an_interpreter_that_optimizes_reads_no_archive(tree: Path) -> None:
    assert run(tree, "import single\nprint(single.name)", "-O") == ["False", "single"]


def test_of_another_version_of_python_nothing_is_read(tree: Path) -> None:
    archive = tree / archive_name(TAG)
    archive.write_bytes(b"\0\0\r\n" + archive.read_bytes()[4:])
    assert run(tree, "import single\nprint(single.name)") == ["False", "single"]


def test_it_says_for_which_version_a_package_was_built(tree: Path) -> None:
    (tree / archive_name(TAG)).rename(tree / archive_name("cpython-39"))
    script = """
import contextlib, io
with contextlib.redirect_stderr(io.StringIO()) as written:
    use_archive(root)
print(written.getvalue())
"""
    lines = run(tree, script)
    assert lines[0] == "False"
    assert f"was built for cpython-39, and this is {TAG}" in lines[1]


def test_without_bytecode_there_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text("name = 'single'")
    assert not write_archive(tmp_path, TAG)
    assert run(tmp_path, "import single\nprint(single.name)") == ["False", "single"]
