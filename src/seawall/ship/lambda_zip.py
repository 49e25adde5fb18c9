"""Build of a function's deployment package: Seawall, the user's code, wheels for Lambda.

Builds are reproducible, byte for byte: versions are those installed here, entries are sorted,
times and modes are fixed, bytecode does not contain the time of its source.

Wheels may need glibc 2.28 at most: Amazon Linux 2023, the base of the managed runtimes from
Python 3.12 on and of `provided.al2023`, has 2.34
(docs.aws.amazon.com/lambda/latest/dg, lambda-runtimes; /linux/al2023, core-glibc).
"""

import importlib.metadata
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from msgspec import Struct

import seawall
from seawall.errors import ConfigError
from seawall.hosts.aws_lambda.module_archive import archive_name
from seawall.ship.compiled_patterns import compile_patterns
from seawall.ship.module_archive import write_archive
from seawall.ship.package_files import package_files
from seawall.ship.parsed_toml import parse_ahead

__all__ = ["UNPACKED_LIMIT", "Architecture", "Package", "build_package"]

Architecture = Literal["arm64", "x86_64"]

UNPACKED_LIMIT = 250 * 1024 * 1024
"""Bytes; docs.aws.amazon.com/lambda/latest/dg, gettingstarted-limits."""

_PLATFORMS = {"arm64": "aarch64", "x86_64": "x86_64"}
# Magic number of compiled code, and where its processor is: elf(5), e_machine.
_ELF = b"\x7fELF"
_MACHINE_AT = slice(18, 20)
_MACHINES = {"arm64": 183, "x86_64": 62}
# Parts of packages that a function does not need.
_LEFT_OUT = ("__pycache__", "tests", "test", "*.pyi", "*.pyx", "*.pxd", "*.h", "*.a", "bin")
_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "licenses", "sboms")
_TIME = (1980, 1, 1, 0, 0, 0)


class Package(Struct, frozen=True):
    """A package that was built. Sizes in bytes.

    Attributes:
        path: The zip file.
        packed_bytes: Its size.
        unpacked_bytes: Sum of the files' sizes.
        files: Number of files.
        compiled: Whether it has bytecode; in an archive as well, unless that would be too large.
        own: Sizes of the user's files.
        packages: Sizes of everything else, by top-level folder or file.
    """

    path: str
    packed_bytes: int
    unpacked_bytes: int
    files: int
    compiled: bool
    own: dict[str, int]
    packages: dict[str, int]


def build_package(
    folder: Path,
    out: Path,
    *,
    architecture: Architecture,
    python: str,
    requirements: Path | None = None,
    compile_with: str = "",
    allow: Collection[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Package:
    """Build a function's package.

    Args:
        folder: Has the user's code and configuration.
        out: The zip file to write.
        architecture: Of the function.
        python: Python version of the function, such as 3.13.
        requirements: Requirements file of the user's code.
        compile_with: An interpreter of that version, for bytecode; by default this one, or
            pythonX.Y on the path. If neither is of that version there is no bytecode.
        allow: See `package_files`.
        report: Called with lines about the progress.

    Raises:
        ConfigError: A package has no wheel for the platform, a file is compiled for another
            processor, the interpreter is of another version, the package is too large, or the
            folder has nothing to pack, or secrets.
    """
    own = package_files(folder, allow=allow, leave_out=out)
    interpreter = _interpreter(python, compile_with)
    with tempfile.TemporaryDirectory(prefix="seawall-package-") as made:
        tree = Path(made) / "tree"
        report("downloading wheels for Lambda's platform ...")
        _install(tree, Path(made), architecture, python, requirements)
        report("copying code ...")
        left_out = (*_LEFT_OUT, "assets", "deploy", "demo_files", "api_reference")
        _copy(Path(seawall.__file__).parent, tree / "seawall", left_out)
        _write_metadata(tree)
        _copy_files(folder, own, tree)
        for each in own:
            if each.endswith(".toml"):
                parse_ahead(tree / each)
        shutil.copy(tree / "seawall/hosts/aws_lambda/bootstrap", tree / "bootstrap")
        _check_machine(tree, architecture)
        if interpreter:
            report("compiling bytecode ...")
        compiled = bool(interpreter) and _compile(tree, own, interpreter, python)
        files = _fitting(tree, archive_name(_tag(python)))
        report("writing the zip file ...")
        _zip(tree, files, out)
        sizes = {path.relative_to(tree).as_posix(): path.stat().st_size for path in files}
        return Package(
            str(out),
            out.stat().st_size,
            sum(sizes.values()),
            len(files),
            compiled,
            {name: sizes[name] for name in own},
            _by_package({name: size for name, size in sizes.items() if name not in own}),
        )


def _install(
    tree: Path, work: Path, architecture: Architecture, python: str, requirements: Path | None
) -> None:
    """Install our dependencies and the user's, in the versions that are installed here."""
    wanted = [
        each for each in importlib.metadata.requires("seawall") or () if "extra ==" not in each
    ]
    installed = {
        each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()
    }
    constraints = work / "constraints.txt"
    pins = [f"{name}=={version}" for name, version in installed.items() if name != "seawall"]
    constraints.write_text("\n".join(sorted(pins)))
    machine = _PLATFORMS[architecture]
    platforms = [
        f"manylinux2014_{machine}",
        f"manylinux_2_17_{machine}",
        f"manylinux_2_28_{machine}",
    ]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--target", str(tree), "--constraint", str(constraints), "--no-compile"),
        "--no-warn-conflicts",  # with what is installed here, where they do not go
        *("--implementation", "cp", "--python-version", python, "--only-binary", ":all:"),
        *(part for platform in platforms for part in ("--platform", platform)),
        *wanted,
        *(("--requirement", str(requirements)) if requirements is not None else ()),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise ConfigError(f"no wheels for {architecture}, Python {python}: {done.stderr.strip()}")
    for path in sorted(tree.rglob("*"), key=lambda each: len(each.parts), reverse=True):
        left_out = any(fnmatch(path.name, pattern) for pattern in _LEFT_OUT)
        record = path.parent.name.endswith(".dist-info") and path.name in _RECORDS
        if left_out or record:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_metadata(tree: Path) -> None:
    """Write Seawall's own metadata, in which its version is found."""
    own = importlib.metadata.distribution("seawall")
    folder = tree / f"seawall-{own.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(own.read_text("METADATA") or "", encoding="utf-8")


def _copy_files(folder: Path, own: Sequence[str], tree: Path) -> None:
    for name in own:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, target)


def _by_package(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sum up the sizes by top-level name, the largest first."""
    sums: dict[str, int] = {}
    for name, size in sizes.items():
        top = name.partition("/")[0]
        sums[top] = sums.get(top, 0) + size
    return dict(sorted(sums.items(), key=lambda each: -each[1]))


def _copy(source: Path, target: Path, left_out: tuple[str, ...]) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)


def _check_machine(tree: Path, architecture: Architecture) -> None:
    """Check that no file, such as one of the user's, is compiled for another processor.

    Raises:
        ConfigError: One is.
    """
    for path in sorted(_files(tree)):
        with path.open("rb") as file:
            head = file.read(_MACHINE_AT.stop)
        if head.startswith(_ELF):
            machine = int.from_bytes(head[_MACHINE_AT], "little")
            if machine != _MACHINES[architecture]:
                raise ConfigError(
                    f"{path.relative_to(tree)} is not compiled for {architecture}: leave it out of "
                    "the folder, and name its package in --requirements"
                )


def _interpreter(python: str, wanted: str) -> str:
    """Find an interpreter of the version; "" if there is none.

    Its version is checked: a command of that name may be a different program, or only report that
    it is not installed, and bytecode of another version is dead weight.

    Raises:
        ConfigError: The one that the user gave is of another version.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = wanted or (sys.executable if python == here else shutil.which(f"python{python}"))
    if not found:
        return ""
    query = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(  # noqa: S603
            [found, "-I", "-c", query], check=False, capture_output=True, text=True, timeout=20
        )
        answer = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        answer = str(error)
    if answer == f"cpython {python}":
        return found
    if wanted:
        raise ConfigError(f"{wanted} is not CPython {python}: {answer or done.stderr.strip()}")
    return ""


def _compile(tree: Path, own: Sequence[str], interpreter: str, python: str) -> bool:
    """Compile bytecode: Lambda's file system is read-only, so every cold start would compile.

    Returns:
        Whether anything could be compiled.
    """
    subprocess.run(  # noqa: S603
        [
            *(interpreter, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(tree), "-p", "/var/task", str(tree)),
        ],
        check=False,  # files that cannot be compiled are not of this version
        capture_output=True,
    )
    return write_archive(tree, _tag(python), compile_patterns(tree, own, interpreter))


def _tag(python: str) -> str:
    """What names a version of Python in names of files of bytecode."""
    return f"cpython-{python.replace('.', '')}"


def _files(tree: Path) -> Iterator[Path]:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _fitting(tree: Path, archive: str) -> list[Path]:
    """The files to pack; without the archive of bytecode if they are too large with it.

    Raises:
        ConfigError: They are too large even so.
    """
    files = sorted(_files(tree))
    unpacked = sum(each.stat().st_size for each in files)
    if unpacked > UNPACKED_LIMIT and (dispensable := tree / archive) in files:
        files.remove(dispensable)
        unpacked -= dispensable.stat().st_size
    if unpacked > UNPACKED_LIMIT:
        raise ConfigError(
            f"the package has {unpacked / 2**20:.0f} MB unpacked; Lambda allows "
            f"{UNPACKED_LIMIT >> 20}: leave packages out, or use a container image"
        )
    return files


def _zip(tree: Path, files: list[Path], out: Path) -> None:
    part = out.with_name(out.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _TIME)
            runs = path.stat().st_mode & stat.S_IXUSR
            entry.external_attr = (stat.S_IFREG | (0o755 if runs else 0o644)) << 16
            entry.create_system = 3  # Unix, on every system
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, path.read_bytes())
    part.replace(out)
