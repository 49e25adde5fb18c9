"""User code: imports modules, calls factories, and reports their errors with file and line.

The line is the last one of the user's own code: frames of Python, installed packages and Seawall
are skipped. The whole traceback is logged at level debug.
"""

import asyncio
import importlib
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from seawall.errors import ConfigError, did_you_mean

__all__ = ["call_factory", "find_object", "reporting_errors"]

_log = logging.getLogger("seawall.config")
_OWN = str(Path(__file__).parent)
_SHOWN = 2_000


def find_object(reference: str, folders: tuple[str, ...], *, key: str) -> Any:  # noqa: ANN401
    """Import the object of `module:name`.

    Args:
        reference: Module and name, with a colon between them.
        folders: Where modules are looked for before Python's own path.
        key: What errors name: the key of the configuration, or the argument of the command.

    Raises:
        ConfigError: It does not exist, or importing it fails; with file and line.
    """
    module, _, name = reference.partition(":")
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    with reporting_errors(key):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (
                module == error.name or module.startswith(error.name + ".")
            ):
                raise  # of an import in the module
            looked = ", ".join(dict.fromkeys(folders))
            raise ConfigError(
                f"{key}: {reference}: there is no module {error.name!r} in {looked} or installed"
            ) from None
    if not hasattr(found, name):
        known = [each for each in vars(found) if not each.startswith("_")]
        raise ConfigError(
            f"{key}: {reference}: the module has no {name!r}{did_you_mean(name, known)} "
            f"({getattr(found, '__file__', module)})"
        )
    return getattr(found, name)


def call_factory(
    factory: Callable[..., Any],
    arguments: dict[str, Any],
    *,
    key: str,
    resolve: Callable[[str, str], str],
) -> Any:  # noqa: ANN401 - whatever it returns
    """Call a factory with the keys of its table.

    Args:
        factory: The function.
        arguments: The keys of the table; those for parameters annotated `pathlib.Path` become
            paths.
        key: The table, for errors.
        resolve: Makes a path of a key and its relative path.

    Raises:
        ConfigError: A key is not one of its parameters, or it fails; with file and line.
    """
    if not callable(factory):
        raise ConfigError(f"{key}.factory: names {type(factory).__name__!r}, not a function")
    if inspect.iscoroutinefunction(factory):
        raise ConfigError(f"{key}.factory: {_definition(factory)} must not be async")
    try:
        signature = inspect.signature(factory)
        signature.bind(**arguments)
    except TypeError as error:
        parameters = signature.parameters
        for name in arguments:
            if name not in parameters:
                raise ConfigError(
                    f"{key}.{name}: {_definition(factory)} has no such parameter"
                    f"{did_you_mean(name, parameters)}; it has: {', '.join(parameters) or 'none'}"
                ) from None
        raise ConfigError(f"{key}: {_definition(factory)}: {error}") from None
    except ValueError:
        pass  # implemented in C, without a signature
    with reporting_errors(key):
        hints = typing.get_type_hints(factory) if inspect.isfunction(factory) else {}
        given = {
            name: Path(resolve(name, value))
            if _is_path(hints.get(name)) and isinstance(value, str)
            else value
            for name, value in arguments.items()
        }
        return factory(**given)


@contextmanager
def reporting_errors(key: str) -> Generator[None, None, None]:
    """Convert any exception of user code to an error with file and line.

    Raises:
        ConfigError: It names `key`, file, line and exception.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:  # SystemExit as well
        if isinstance(error, ConfigError) and str(error).startswith(f"{key}:"):
            raise
        _log.debug("%s: the whole traceback", key, exc_info=error)
        raise ConfigError(f"{key}: {_location(error)}{_describe(error)}") from None


def _is_path(hint: object) -> bool:
    return hint is Path or Path in typing.get_args(hint)


def _describe(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, SyntaxError):
        line = f": {error.text.strip()}" if error.text else ""
        return f"{type(error).__name__}: {error.msg}{line}"[:_SHOWN]
    text = " ".join(str(error).split())
    if isinstance(error, BaseExceptionGroup):
        text = f"{text}: {'; '.join(_describe(each) for each in error.exceptions)}"
    return f"{type(error).__name__}: {text}"[:_SHOWN] if text else type(error).__name__


def _location(error: BaseException) -> str:
    """`file:line: `, or empty if no frame is user code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_display_path(error.filename)}:{error.lineno or 1}: "
    found = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if _is_users(file):
            found = f"{_display_path(file)}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return found


def _is_users(file: str) -> bool:
    if file.startswith(("<", _OWN)):
        return False
    if "site-packages" in file or "dist-packages" in file:
        return False
    return not file.startswith(str(Path(asyncio.__file__).parents[1]))


def _definition(function: Callable[..., Any]) -> str:
    """`file:line name()`."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return (
        f"{_display_path(code.co_filename)}:{code.co_firstlineno} {name}()" if code else f"{name}()"
    )


def _display_path(file: str) -> str:
    """The path, relative to the working directory if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file
