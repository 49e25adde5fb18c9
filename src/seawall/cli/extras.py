"""What is said where an optional part of the installation is not there."""

from collections.abc import Generator
from contextlib import contextmanager

from seawall.errors import ConfigError

__all__ = ["requires_extra"]


@contextmanager
def requires_extra(command: str, extra: str) -> Generator[None, None, None]:
    """Imports of packages that come with an extra.

    Raises:
        ConfigError: One of them is not installed; it names the extra.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{command} needs the extra '{extra}': pip install 'seawall[{extra}]' ({error})"
        ) from None
