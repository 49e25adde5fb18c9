"""Errors in user code are reported in one line, with file and line number."""

import sys
from pathlib import Path

import pytest

from seawall import Orchestrator
from seawall.errors import ConfigError
from seawall.user_code import call_factory, find_object
from tests.servers import command

CONFIG = """
[models.default]
base_url = "http://127.0.0.1:1/v1"
model = "m"
[agents.one]
instructions = "Help."
[tools.shop]
factory = "broken:make"
[[identity.api_keys]]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
tenant = "shop"
subject = "me"
"""
MISTAKES = {
    "syntax": ("x = 1\ndef make(:\n", ":2: SyntaxError: "),
    "an import": ("import absent_module\n", ":1: ModuleNotFoundError: No module named 'absent"),
    "an import of a part": ("from json import absent\n", ":1: ImportError: cannot import name"),
    "at import": ("a = 1\nb = a / 0\n", ":2: ZeroDivisionError: division by zero"),
    "an end at import": ("import sys\nsys.exit(3)\n", ":2: SystemExit: 3"),
    "a tool's signature": (
        "from seawall import tool\n\n@tool\ndef find(order):\n    return order\n",
        ":3: TypeError: tool find: parameter order needs a type annotation",
    ),
    "a type without a schema": (
        "from seawall import tool\n\n@tool\ndef find(order: complex) -> str:\n    return ''\n",
        ":3: TypeError: tool find: ",
    ),
    "in the factory": ("def make():\n    return {}['key']\n", ":2: KeyError: 'key'"),
    "in a library": (
        "import json\ndef make():\n    return json.loads('{')\n",
        ":3: JSONDecodeError: Expecting property name",
    ),
    "a group": (
        "def make():\n    raise ExceptionGroup('several', [ValueError('a'), KeyError('b')])\n",
        ":2: ExceptionGroup: several (2 sub-exceptions): ValueError: a; KeyError: 'b'",
    ),
    "no such name": ("def mkae():\n    pass\n", 'has no \'make\'; did you mean "mkae"?'),
    "no function": ("make = 3\n", "names 'int', not a function"),
    "async": ("async def make():\n    pass\n", "make() must not be async"),
    "no toolset": ("def make():\n    return [3]\n", "must return a Toolset, not list"),
    "no tuple": (
        "from seawall import *\n@tool\ndef find(): ...\ndef make(): return Toolset((find))\n",
        ":4: TypeError: Toolset needs a tuple of tools: Toolset((find,))",
    ),
    "no decorator": (
        "from seawall import *\ndef find(): ...\ndef make(): return Toolset((find,))\n",
        ":3: TypeError: Toolset: find is not a tool; decorate the function with @tool",
    ),
    "a missing argument": ("def make(database):\n    pass\n", "a required argument: 'database'"),
}  # fmt: skip


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    (tmp_path / "seawall.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("name", MISTAKES)
async def test_each_mistake_is_one_line_with_its_place(name: str, broken: Path) -> None:
    module, words = MISTAKES[name]
    (broken / "broken.py").write_text(module)
    with pytest.raises(ConfigError) as raised:
        await Orchestrator.from_config(broken / "seawall.toml").open()
    text = str(raised.value)
    assert text.startswith(f"{broken / 'seawall.toml'}: tools.shop")
    assert words in text
    assert "\n" not in text
    if words.startswith(":"):
        assert f"{broken / 'broken.py'}{words}" in text


async def test_a_missing_module_is_reported_with_the_searched_folders(broken: Path) -> None:
    with pytest.raises(ConfigError, match=r"no module 'broken' in .* or installed") as raised:
        await Orchestrator.from_config(broken / "seawall.toml").open()
    assert str(broken) in str(raised.value)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_server_with_several_workers_reports_an_error_once(workers: str, broken: Path) -> None:
    (broken / "broken.py").write_text("def make():\n    raise OSError(2, 'gone')\n")
    words = ("serve", str(broken / "seawall.toml"), "--port", "0", "--workers", workers)
    ended = command(*words, folder=broken)
    location = f"{broken / 'seawall.toml'}: tools.shop: broken.py:2"
    assert ended.stderr == f"seawall: {location}: FileNotFoundError: [Errno 2] gone\n"
    assert (ended.returncode, ended.stdout) == (2, "")


def test_an_object_that_is_no_orchestrator_is_refused(broken: Path) -> None:
    for module, words in (
        ("app = 3\n", "broken:app: is a int, not a seawall.Orchestrator"),
        ("apps = 3\n", 'did you mean "apps"?'),
        ("1 / 0\n", "broken.py:1: ZeroDivisionError"),
    ):
        (broken / "broken.py").write_text(module)
        ended = command("serve", "broken:app", folder=broken)
        assert words in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert ended.returncode == 2


def test_an_unknown_argument_of_a_factory_is_reported_with_the_known_ones() -> None:
    def make(*, database: str, table: str = "t") -> tuple[str, str]:
        return database, table

    with pytest.raises(ConfigError) as raised:
        call_factory(make, {"databse": "x"}, key="tools.shop", resolve=lambda _, value: value)
    text = str(raised.value)
    assert text.startswith("tools.shop.databse: ")
    assert text.endswith('no such parameter; did you mean "database"?; it has: database, table')


def test_paths_of_a_factory_are_resolved_by_the_given_function() -> None:
    def make(database: Path, name: str) -> tuple[Path, str]:
        return database, name

    given = {"database": "a.db", "name": "b.db"}
    made = call_factory(
        make, given, key="tools.shop", resolve=lambda name, value: f"/at/{name}/{value}"
    )
    assert made == (Path("/at/database/a.db"), "b.db")


def test_modules_are_found_in_the_first_folder_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "two_places.py").write_text(f"where = '{folder}'\n")
    folders = (str(tmp_path / "one"), str(tmp_path / "two"))
    assert find_object("two_places:where", folders, key="x") == "one"
