"""`seawall ship` out of an installed wheel: the same files as out of the checkout."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.ship.test_sized import plan


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel's packages are."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:  # as it is pure Python, that is its installation
        archive.extractall(folder / "site")
    return folder / "site"


# Several commands in one process: most of what one takes is its imports.
_SHIP = """
import json, sys, seawall
from seawall.cli.main import main
print(seawall.__file__, flush=True)
for arguments in json.loads(sys.argv[1]):
    if main(["ship", *arguments, "--json"]):
        sys.exit(1)
"""


def ship(
    out: Path, cases: dict[str, tuple[str, ...]], site: Path | None = None
) -> dict[str, dict[str, bytes]]:
    """The files that are written for each platform, by an installed package or by the checkout."""
    path = str(site) if site is not None else str(ROOT / "src")
    commands = [
        [platform, *arguments, "--out", str(out / platform)]
        for platform, arguments in cases.items()
    ]
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _SHIP, json.dumps(commands)],
        cwd=out,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    where, *printed = done.stdout.splitlines()
    assert where.startswith(path)
    assert [bool(json.loads(line)["files"]) for line in printed] == [True] * len(cases)
    return {
        platform: {
            path.relative_to(out / platform).as_posix(): path.read_bytes()
            for path in (out / platform).rglob("*")
            if path.is_file() and path.name != ".seawall-ship.json"
        }
        for platform in cases
    }


def test_an_installed_package_ships_the_same_files(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "plan.json"
    source.write_text(plan("--daily", "20K", "--spike", "300@20s"))
    planned = ("--plan", str(source))
    cases: dict[str, tuple[str, ...]] = {"eks": planned, "lambda": planned, "image": ()}
    of_checkout = ship(tmp_path / "ours", cases)
    of_wheel = ship(tmp_path / "theirs", cases, site=installed)
    for platform in cases:
        ours, theirs = of_checkout[platform], of_wheel[platform]
        packages = [name for name in ours if name.endswith("seawall.zip")]
        assert len(packages) == (platform != "lambda")
        for name in packages:
            assert entries(ours.pop(name)) == entries(theirs.pop(name))
        assert theirs == ours
        expected = {
            "eks": {"image/Dockerfile", "image/build.sh", "routing.yaml", "seawall/Chart.yaml"},
            "lambda": {"template.yaml", "shared.yaml", "routing.yaml", "README.md"},
            "image": {"Dockerfile", "build.sh", "requirements.lock", "README.md"},
        }
        assert expected[platform] <= theirs.keys()


def entries(packed: bytes) -> dict[str, int]:
    """The package's files by their check sums."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = {each.filename: each.CRC for each in archive.infolist()}
    assert "seawall/__main__.py" in names
    assert not [name for name in names if "/ship/deploy/" in name or name.endswith(".pyc")]
    return {name: crc for name, crc in names.items() if not name.endswith("/METADATA")}
