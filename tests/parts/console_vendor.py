"""Libraries of the console and of /docs: from npm packages of fixed versions, `make console`.

They are committed below `src/seawall/console/assets/vendor`, each in one file and with its licence,
so that neither an installation nor a server needs Node.js or npm. Swagger UI is beside them,
compressed as it is served.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

__all__ = ["FOLDER", "REFERENCE", "VERSIONS", "main"]

FOLDER = Path(__file__).resolve().parents[2] / "src/seawall/console/assets/vendor"
REFERENCE = FOLDER.parents[1] / "api_reference"
VERSIONS = {"preact": "11.2.0", "htm": "3.1.1", "uplot": "1.6.32"}
SWAGGER_UI = "5.35.0"
_LICENCES = {"preact": "MIT", "htm": "Apache-2.0", "uplot": "MIT"}
_FILES = {
    "preact.js": ("preact", "dist/preact.mjs"),
    "hooks.js": ("preact", "hooks/dist/hooks.mjs"),
    "htm.js": ("htm", "dist/htm.module.js"),
    "uplot.js": ("uplot", "dist/uPlot.iife.min.js"),
    "uplot.css": ("uplot", "dist/uPlot.min.css"),
}


def main() -> int:
    """Write the files again; the exit status."""
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("npm is not installed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        packages = {name: _package(npm, name, VERSIONS[name], Path(folder)) for name in VERSIONS}
        swagger_ui = _package(npm, "swagger-ui-dist", SWAGGER_UI, Path(folder))
    FOLDER.mkdir(parents=True, exist_ok=True)
    sums: dict[str, str] = {}
    for file, (name, path) in _FILES.items():
        text = _as_module(file, packages[name][path].decode())
        licence = f"/* {name} {VERSIONS[name]}, {_LICENCES[name]}: {name}.LICENSE.txt */\n"
        (FOLDER / file).write_text(licence + text, encoding="utf-8")
        sums[file] = hashlib.sha256((licence + text).encode()).hexdigest()
    for name in VERSIONS:
        (FOLDER / f"{name}.LICENSE.txt").write_bytes(packages[name]["LICENSE"])
    listed = json.dumps({"versions": VERSIONS, "sha256": sums}, indent=2)
    (FOLDER / "versions.json").write_text(listed + "\n", encoding="utf-8")
    _write_reference(swagger_ui)
    return 0


def _write_reference(package: dict[str, bytes]) -> None:
    """Swagger UI, without its source map, with its licences and those of what is in it."""
    for file, path in (("swagger-ui.js", "swagger-ui-bundle.js"), ("swagger-ui.css",) * 2):
        text = re.sub(rb"\n?/[/*]# sourceMappingURL=[^\n]*\s*$", b"\n", package[path])
        (REFERENCE / f"{file}.gz").write_bytes(gzip.compress(text, mtime=0))
    licences = ("NOTICE", "LICENSE", "swagger-ui-bundle.js.LICENSE.txt")
    text = b"\n\n".join(package[each].strip() for each in licences)
    title = f"swagger-ui-dist {SWAGGER_UI}\n\n".encode()
    (REFERENCE / "swagger-ui.LICENSE.txt").write_bytes(title + text + b"\n")


def _package(npm: str, name: str, version: str, folder: Path) -> dict[str, bytes]:
    """The files of a package, by their paths in it."""
    subprocess.run(
        (npm, "pack", "--silent", f"{name}@{version}"),
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    data = (folder / f"{name}-{version}.tgz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            each.name.removeprefix("package/"): archive.extractfile(each).read()  # type: ignore[union-attr] # a file
            for each in archive.getmembers()
            if each.isfile()
        }


def _as_module(file: str, text: str) -> str:
    """The text as an ES module whose imports are addresses of files beside it."""
    text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", text)
    text = re.sub(r'from ?"preact"', 'from"./preact.js"', text)
    return text + "\nexport default uPlot;\n" if file == "uplot.js" else text


if __name__ == "__main__":
    raise SystemExit(main())
