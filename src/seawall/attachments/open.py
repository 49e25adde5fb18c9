"""Opening of what takes, keeps and expires files of customers."""

from collections.abc import Mapping
from importlib.util import find_spec

from msgspec import Struct

from seawall.attachments.checker import Checker
from seawall.attachments.contents import AttachmentContents
from seawall.attachments.intake import Attachments
from seawall.attachments.memory import MemoryShare
from seawall.attachments.sweep import FileSweep
from seawall.errors import ConfigError
from seawall.settings import AttachmentSettings, BlobSettings
from seawall.storage.blobs import BlobStore
from seawall.storage.open_blobs import open_blobs
from seawall.storage.port import SessionStore
from seawall.turn import Principal

__all__ = ["OpenAttachments", "open_attachments"]

_PACKAGES = ("PIL", "pypdf", "python_multipart")


class OpenAttachments(Struct, frozen=True):
    """What takes files, what loads them, and what deletes those that have expired."""

    intake: Attachments
    store: BlobStore
    memory: MemoryShare
    sweep: FileSweep
    seconds: float

    def contents_of(self, owner: Principal) -> AttachmentContents:
        """The source of an owner's files for models."""
        return AttachmentContents(self.store, self.memory, owner, self.seconds)

    async def close(self) -> None:
        """Release everything."""
        await self.sweep.stop()
        await self.intake.close()


async def open_attachments(
    blobs: BlobSettings,
    settings: AttachmentSettings,
    sessions: SessionStore,
    *,
    grace_seconds: float,
    environment: Mapping[str, str],
) -> OpenAttachments:
    """Open the store of files.

    Args:
        blobs: Which store, and its bounds.
        settings: Bounds of files.
        sessions: The session store.
        grace_seconds: How long a session may not exist yet when it has files.
        environment: Where AWS's region and credentials are found.

    Raises:
        ConfigError: The extra is not installed, or the settings are wrong.
        StoreUnavailable: The store cannot be reached.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ConfigError(
                "[blobs] needs the extra 'attachments': pip install 'seawall[attachments]' "
                f"({package} is missing)"
            )
    store = await open_blobs(blobs, environment)
    memory = MemoryShare(settings.in_flight_bytes)
    sweep = FileSweep(
        store,
        sessions,
        every_seconds=blobs.sweep_seconds,
        upload_seconds=blobs.upload_seconds,
        grace_seconds=grace_seconds,
    )
    intake = Attachments(store, Checker(settings), memory, settings, blobs)
    return OpenAttachments(intake, store, memory, sweep, blobs.seconds)
