"""Open the blob store that the settings name: the only module that chooses the adapter."""

import os
from collections.abc import Mapping

from seawall.settings import BlobSettings
from seawall.storage.blobs import BlobStore

__all__ = ["open_blobs"]


async def open_blobs(
    settings: BlobSettings, environment: Mapping[str, str] = os.environ
) -> BlobStore:
    """Open the blob store.

    Args:
        settings: Which store.
        environment: Where AWS's region and credentials are found.

    Raises:
        ConfigError: The settings are wrong, or the store is not writable.
        StoreUnavailable: It cannot be reached.
    """
    store: BlobStore
    if settings.store == "s3":
        from seawall.storage.blob_s3 import open_s3  # noqa: PLC0415 - only if configured

        store = open_s3(settings, environment)
    else:
        from seawall.storage.blob_files import FileBlobStore  # noqa: PLC0415 - likewise

        store = FileBlobStore(
            settings.path,
            subject_bytes=settings.subject_bytes,
            tenant_bytes=settings.tenant_bytes,
            total_bytes=settings.total_bytes,
        )
    try:
        await store.open()
    except BaseException:
        await store.close()
        raise
    return store
