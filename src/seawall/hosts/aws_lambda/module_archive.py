"""One file with the bytecode of a function's package, in place of a file for each module.

A cold start imports more than a hundred modules of the package. Finding and reading each takes six
to ten system calls; from the archive, it takes one. `seawall lambda build` writes the archive
beside the package `seawall` (`seawall.ship.module_archive`); without one, or with one of another
version of Python, modules are imported as usual. So they are with `PYTHONOPTIMIZE`, whose bytecode
is another.

Format: the magic number of bytecode (4 bytes), the length of the index (8 bytes, little endian),
the index, and the bytecode. The index is a marshalled dictionary: path without suffix, such as
"seawall/errors" or "seawall/hosts/__init__", to offset from the end of the index and length.

It also has regular expressions that were compiled with the package
(`seawall.ship.compiled_patterns`), as a marshalled dictionary under the path `PATTERNS`: whether it
is text, the pattern and its flags, to what `re` makes of them. Others are compiled as usual.

Only how modules are found in folders of the package changes, so the order of `sys.path`, packages
without `__init__.py`, compiled modules and files beside modules are as without an archive.
"""

import _imp
import _sre  # type: ignore[import-not-found]
import marshal
import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import MAGIC_NUMBER
from re import _compiler  # type: ignore[attr-defined]
from types import CodeType, ModuleType

__all__ = ["HEAD_BYTES", "PATTERNS", "archive_name", "use_archive"]

PATTERNS = "*patterns*"
"""Under which the compiled regular expressions are; no module has such a name."""

HEAD_BYTES = 12
_LENGTH_AT = slice(4, HEAD_BYTES)
_AS_USUAL = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


def archive_name(tag: str) -> str:
    """The file name of an archive; `tag` names a version of Python, such as "cpython-313"."""
    return f"modules.{tag}.archive"


class _Archive:
    """An open archive of the modules in the folder `root`."""

    def __init__(self, path: str, file: int, start: int, index: dict[str, tuple[int, int]]) -> None:
        self.path = path
        self.inside = f"{path.rpartition('/')[0]}/"
        self.index = index
        self._file = file
        self._start = start

    def read(self, name: str) -> bytes:
        """What the archive has under a name of its index."""
        offset, size = self.index[name]
        return os.pread(self._file, size, self._start + offset)

    def code(self, path: str) -> CodeType:
        """The code of the module whose source is at `path`."""
        code: CodeType = marshal.loads(self.read(path[len(self.inside) : -len(".py")]))  # noqa: S302
        # As importlib does: the package may be in any folder.
        _imp._fix_co_filename(code, path)  # type: ignore[attr-defined] # noqa: SLF001
        return code

    def spec(self, fullname: str, name: str, *, is_package: bool) -> ModuleSpec:
        """The specification of a module; `name` is the one in the index.

        As `importlib.util.spec_from_file_location` makes it, which takes paths apart for what is
        known here: whether it is a package, and where its bytecode is.
        """
        path = f"{self.inside}{name}.py"
        loader = _Loader(fullname, path, self)
        spec = ModuleSpec(fullname, loader, origin=path, is_package=is_package)
        spec.has_location = True
        spec.cached = self.path
        if is_package:
            spec.submodule_search_locations = [path.rpartition("/")[0]]
        return spec

    def finder(self, path: str) -> "_Finder":
        """A hook of `sys.path_hooks`."""
        if not f"{path}/".startswith(self.inside):
            raise ImportError(path=path)
        return _Finder(path, self)


class _Loader(SourceFileLoader):
    """Loads a module from the archive; what is not its code it reads as usual."""

    def __init__(self, fullname: str, path: str, archive: _Archive) -> None:
        super().__init__(fullname, path)
        self._archive = archive

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - importlib's signature
        return self._archive.code(self.path)


class _Finder(FileFinder):
    """Finds the modules of one folder, first in the archive."""

    def __init__(self, path: str, archive: _Archive) -> None:
        super().__init__(path, *_AS_USUAL)
        self._archive = archive
        self._prefix = f"{path}/"[len(archive.inside) :]

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        archive, name = self._archive, self._prefix + fullname.rpartition(".")[2]
        for each in (name, f"{name}/__init__"):
            if each in archive.index:
                return archive.spec(fullname, each, is_package=each is not name)
        return super().find_spec(fullname, target)


def use_archive(root: str) -> bool:
    """Import the modules of the package in the folder `root` from its archive, if it has one.

    Regular expressions are taken from it as well.

    Args:
        root: The folder; absolute.

    Returns:
        Whether there is an archive of this version of Python.
    """
    if sys.flags.optimize:
        return False
    path = f"{root}/{archive_name(sys.implementation.cache_tag)}"
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        _warn_of_others(root)
        return False
    head = os.read(file, HEAD_BYTES)
    if head[: _LENGTH_AT.start] != MAGIC_NUMBER:
        os.close(file)
        return False
    length = int.from_bytes(head[_LENGTH_AT], "little")
    index = marshal.loads(os.read(file, length))  # noqa: S302 - trusted as bytecode is
    archive = _Archive(path, file, HEAD_BYTES + length, index)
    sys.path_hooks.insert(0, archive.finder)
    for each in [each for each in sys.path_importer_cache if f"{each}/".startswith(archive.inside)]:
        del sys.path_importer_cache[each]
    if PATTERNS in index:
        magic, order, table = marshal.loads(archive.read(PATTERNS))  # noqa: S302 - as above
        if (magic, order) == (_sre.MAGIC, sys.byteorder):
            _use_patterns(table)
    return True


def _use_patterns(table: dict[tuple[bool, str | bytes, int], bytes]) -> None:
    """Have `re` take the patterns of the table from there, in place of compiling them."""
    usual = _compiler.compile

    def compile_pattern(pattern: str | bytes, flags: int = 0) -> object:
        found = table.get((isinstance(pattern, str), pattern, flags))
        if found is None:
            return usual(pattern, flags)
        return _sre.compile(pattern, *marshal.loads(found))  # noqa: S302 - as above

    _compiler.compile = compile_pattern


def _warn_of_others(root: str) -> None:
    """Print for which version of Python the package was built, if not for this one.

    Its compiled modules are of that version, too, and the first of them is not found.
    """
    first, last = archive_name("*").split("*")
    for name in sorted(os.listdir(root)):  # noqa: PTH208 - pathlib costs an import
        if name.startswith(first) and name.endswith(last):
            built = name.removeprefix(first).removesuffix(last)
            print(
                f"the package in {root} was built for {built}, and this is "
                f"{sys.implementation.cache_tag}: build it with --python "
                f"{sys.version_info.major}.{sys.version_info.minor}",
                file=sys.stderr,
            )
