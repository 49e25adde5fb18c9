"""Modules from one archive: what is imported is as without it."""

import _sre  # type: ignore[import-not-found]
import ast
import compileall
import marshal
import re
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from seawall.hosts.aws_lambda.module_archive import archive_name
from seawall.ship.compiled_patterns import compile_patterns
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


PATTERNS = {
    "seawall/named.py": """
import re
WORDS = re.compile("(?P<first>words?)" r"\\s+", re.IGNORECASE | re.ASCII)
BYTES = re.compile(b"words?", flags) if flags else re.compile(b"bytes?")
MADE = re.compile(WORDS.pattern + "made")
BROKEN = re.compile("(")
""",
    "own.toml": "[intents.one]\npatterns = ['cancel (it|that)']",
    "broken.py": "re.compile('x'",
}
WITHOUT_A_COMPILER = """
import re, re._parser
def parse(*_): raise AssertionError("compiled")
usual, re._parser.parse = re._parser.parse, parse
"""


@pytest.fixture
def with_patterns(tree: Path) -> Path:
    for name, text in PATTERNS.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
    assert compileall.compile_file(tree / "single.py", quiet=1)
    made = compile_patterns(tree, ["own.toml", "broken.py"], sys.executable)
    assert write_archive(tree, TAG, made)
    return tree


def test_patterns_are_compiled_with_the_package(with_patterns: Path) -> None:
    script = """
found = re.compile("(?P<first>words?)" r"\\s+", re.I | re.A)
print(found.fullmatch("WORDS  ").groupdict(), found.flags == re.I | re.A)
print(re.compile(b"bytes?").fullmatch(b"byte") is not None)
print(re.search("cancel (it|that)", "Cancel THAT", re.I)[1])
import asyncio, platform, textwrap, urllib.parse, uuid
print(textwrap.wrap("one two", 4))
"""
    ahead = run(with_patterns, WITHOUT_A_COMPILER + script)
    assert ahead == ["True", "{'first': 'WORDS'} True", "True", "THAT", "['one', 'two']"]


def test_other_patterns_are_compiled_as_usual(with_patterns: Path) -> None:
    script = """
import re
for pattern, flags in (("bytes?", 0), (b"bytes?", re.I), ("cancel (it|that)", 0), ("(", 0)):
    try:
        re._parser.parse = parse
        re.compile(pattern, flags)
        print("ahead")
    except AssertionError:
        re._parser.parse = usual
        try:
            print(re.compile(pattern, flags).pattern == pattern)
        except re.error:
            print("wrong")
"""
    found = run(with_patterns, WITHOUT_A_COMPILER + script)
    assert found == ["True", "True", "True", "True", "wrong"]


def test_patterns_of_another_compiler_are_not_used(with_patterns: Path) -> None:
    other = "big" if sys.byteorder == "little" else "little"
    for magic, order in ((0, sys.byteorder), (_sre.MAGIC, other)):
        made = marshal.dumps((magic, order, {(True, "a", 0): b"nonsense"}))
        assert write_archive(with_patterns, TAG, made)
        script = "import re\nprint(re.compile('a').fullmatch('a')[0])"
        assert run(with_patterns, script) == ["True", "a"]


@pytest.mark.parametrize(
    "source",
    [
        "import regex as re\nre.compile(r'\\p{L}', re.V1)",  # not a flag of Python's
        "re.compile('x', re.LOCALE)",
        "re.compile('(?u)x', re.ASCII)",
        "re.compile('(?P<x>')",
        f"re.compile({'x' * 9_000!r}, re.DEBUG)",  # prints what it makes of each
        f"re.compile('x')\ny = {'-' * 50_000}1",
    ],
)
def test_a_pattern_that_cannot_be_compiled_ahead_leaves_the_others(
    with_patterns: Path, source: str
) -> None:
    (with_patterns / "odd.py").write_text(source)
    made = compile_patterns(with_patterns, ["odd.py"], sys.executable)
    magic, _, table = marshal.loads(made)
    assert magic == _sre.MAGIC
    assert (False, b"bytes?", 0) in table
    assert not any(pattern[:1] == "x" for _, pattern, _ in table)


def test_patterns_reach_an_interpreter_of_any_locale(with_patterns: Path) -> None:
    (with_patterns / "own.toml").write_text("[intents.one]\npatterns = ['größe']", encoding="utf-8")
    echo = with_patterns / "echo"
    echo.write_text("#!/bin/sh\ncat")
    echo.chmod(0o755)
    passed = compile_patterns(with_patterns, ["own.toml"], str(echo))
    assert passed.isascii()
    assert ("größe", int(re.IGNORECASE)) in ast.literal_eval(passed.decode())


def test_an_interpreter_that_cannot_compile_ahead_has_no_patterns(tree: Path) -> None:
    assert compile_patterns(tree, [], "false") == b""
