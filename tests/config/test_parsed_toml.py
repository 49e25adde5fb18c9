"""TOML that was parsed ahead is the same as TOML that is parsed, or is not used."""

import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from seawall.config import load_settings, parse_settings, parsed_ahead
from seawall.errors import ConfigError
from seawall.ship.parsed_toml import parse_ahead
from tests.servers import ROOT

STORE = (ROOT / "examples/store/seawall.toml").read_text(encoding="utf-8")


def _written(folder: Path, text: str) -> Path:
    path = folder / "seawall.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_are_the_same(tmp_path: Path) -> None:
    path = _written(tmp_path, "\ufeff" + STORE)
    parsed = load_settings(path, {})
    made = parse_ahead(path)
    assert made is not None
    assert parsed_ahead(path, STORE) == tomllib.loads(STORE)
    assert load_settings(path, {}) == parsed


def test_the_parser_is_not_imported(tmp_path: Path) -> None:
    path = _written(tmp_path, STORE)
    parse_ahead(path)
    variables = {"SEAWALL_SERVER__HOST": "http://text", "SEAWALL_IDENTITY__ANONYMOUS": "false"}
    code = (
        "import sys; from pathlib import Path; from seawall.config import load_settings; "
        f"load_settings(Path({str(path)!r}), {variables!r}); print('tomllib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_changed_file_is_parsed_again(tmp_path: Path) -> None:
    path = _written(tmp_path, STORE)
    parse_ahead(path)
    _written(tmp_path, STORE + "\n[server]\nport = 0\nhots = 1\n")
    with pytest.raises(ConfigError, match=r"seawall\.toml:\d+: server\.hots: unknown key"):
        load_settings(path, {})


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"[1]", b'["", 5]', b"null", b"\xff"])
def test_a_damaged_file_is_not_used(tmp_path: Path, damage: bytes) -> None:
    path = _written(tmp_path, STORE)
    made = parse_ahead(path)
    assert made is not None
    made.write_bytes(damage)
    assert parsed_ahead(path, STORE) is None
    assert load_settings(path, {}).agents


@pytest.mark.parametrize(
    "text", ["a = 2026-11-30", "a = nan", "a = inf", "a =", "a = " + "[" * 2_000, "a = 1e999"]
)
def test_what_json_has_not_is_not_written(tmp_path: Path, text: str) -> None:
    assert parse_ahead(_written(tmp_path, text)) is None
    assert [each.name for each in tmp_path.iterdir()] == ["seawall.toml"]


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "true", "false", "truely", "trues = 1", "null", "none", "nan", "info", "inf"),
        *("0", "007", "-1", "+1", "1_000", "0x1f", "1.0", "1e3", ".5", "9" * 5_000, "12 apples"),
        *('"a"', '"a', "'b'", '"""c"""', "[1, 2]", '[{a = "b"}]', "{a = 1}", "{", "[1", "# no"),
        *("text", "http://a/b", "/a/b", "a = 1", "\n1", "\t1", "  1  ", "1 # one", "1\nb = 2"),
        *("\u00e9", "2026-11-30", "07:32:00", "\ufeff1", "\x00", "=", "_1", "i", "t", "f", "n"),
    ],
)
def test_a_variable_is_toml_or_text(value: str) -> None:
    try:
        expected: object = tomllib.loads(f"value = {value}")["value"]
    except ValueError:
        expected = value
    text = '[models.default]\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    variables = {"SEAWALL_TOOLS__X__FACTORY": "a:b", "SEAWALL_TOOLS__X__KEY": value}
    if isinstance(expected, float) and not math.isfinite(expected):
        with pytest.raises(ConfigError, match="must be a finite number"):
            parse_settings(text, environment=variables)
        return
    found = parse_settings(text, environment=variables).tools["x"].arguments["key"]
    assert (type(found), found) == (type(expected), expected)
