"""The files of the page: libraries as they were taken, imports that exist, no markup from text."""

import hashlib
import json
import re

from seawall.console.files import load_assets
from tests.parts.console_vendor import FOLDER, VERSIONS


def test_the_libraries_are_those_that_were_taken() -> None:
    listed = json.loads((FOLDER / "versions.json").read_text())
    assert listed["versions"] == VERSIONS
    for name, digest in listed["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_every_import_is_of_a_file_that_is_served() -> None:
    assets = load_assets()
    scripts = {name: each.body.decode() for name, each in assets.items() if name.endswith(".js")}
    assert len(scripts) > 12
    for name, text in scripts.items():
        for path in re.findall(r'^import [^"]*"([^"]+)"', text, re.MULTILINE):
            parts = name.split("/")[:-1]
            for each in path.split("/"):
                if each == "..":
                    parts.pop()
                elif each != ".":
                    parts.append(each)
            assert "/".join(parts) in assets, f"{name} imports {path}"


def test_no_script_makes_markup_of_text() -> None:
    for name, asset in load_assets().items():
        if name.endswith(".js") and not name.startswith("vendor/"):
            found = re.search(
                rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
                asset.body,
            )
            assert found is None, f"{name}: {found}"
