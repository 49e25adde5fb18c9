"""The blob store port: one contract for files and for S3; and what only one of them has."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import botocore.session
import msgspec
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from seawall.attachments.sweep import FileSweep
from seawall.aws import Credentials
from seawall.aws.s3 import S3Client, S3Refused, S3Unavailable
from seawall.errors import ConfigError, StorageExhausted, StoreUnavailable
from seawall.settings import BlobSettings
from seawall.storage.blobs import (
    Blob,
    BlobInfo,
    BlobKey,
    BlobStore,
    SessionFiles,
    key_of,
    new_name,
    owner_digest,
)
from seawall.storage.open import open_memory_store
from seawall.storage.open_blobs import open_blobs
from seawall.storage.port import Commit, SessionStore
from seawall.transport.http_client import HttpClient
from seawall.turn import Principal, SessionKey, TurnRecord, Usage, UserMessage
from tests.faulty_server import Request
from tests.models.player import Recording, playing
from tests.properties import examples
from tests.s3_server import ENVIRONMENT, running_s3

ADA = Principal("acme", "ada")
BOB = Principal("acme", "bob")
OTHER = Principal("other", "ada")
BUCKET = "test-files"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_s3(tmp_path_factory.mktemp("s3")) as url:
        asyncio.run(_create_bucket(url))
        yield url


async def _create_bucket(url: str) -> None:
    http = HttpClient()
    deadline = asyncio.get_running_loop().time() + 30
    client = S3Client(http, Fixed(), BUCKET, region="eu-west-1", endpoint=url, path_style=True)
    await client.create_bucket(deadline=deadline)
    await http.close()


class Fixed:
    """Credentials that do not change."""

    def __init__(self, secret: str = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]) -> None:
        self._made = Credentials(ENVIRONMENT["AWS_ACCESS_KEY_ID"], secret)

    async def get(self, *, deadline: float) -> Credentials:  # noqa: ARG002 - the port's
        return self._made

    async def renew(self, refused: Credentials, *, deadline: float) -> Credentials:  # noqa: ARG002
        return self._made


class Places:
    """Where a test opens its stores: a folder, or a prefix of the bucket."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind = kind
        self.folder = folder
        self._url = url

    @asynccontextmanager
    async def opened(self, **more: Any) -> AsyncIterator[BlobStore]:
        if self.kind == "files":
            made = BlobSettings(path=str(self.folder / "files"), **more)
        else:
            prefix = f"{owner_digest('', str(self.folder))[:20]}/"
            made = BlobSettings(
                store="s3",
                bucket=BUCKET,
                endpoint=self._url,
                path_style=True,
                prefix=prefix,
                **more,
            )
        store = await open_blobs(made, ENVIRONMENT)
        try:
            yield store
        finally:
            await store.close()


@pytest.fixture(params=["files", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    url = request.getfixturevalue("s3") if request.param == "s3" else ""
    return Places(request.param, tmp_path, url)


def blob(
    owner: Principal = ADA, session: str = "", content: bytes = b"content", **more: Any
) -> Blob:
    key = BlobKey(owner, session, new_name())
    known: dict[str, Any] = {
        "key": key,
        "media_type": "text/plain",
        "name": 'ü "a" \u4e2d.txt',
        "bytes": len(content),
        "tokens": 3,
        "created_at": 1_790_000_000.25,
    }
    return Blob(BlobInfo(**(known | more)), content)


async def test_what_is_put_is_found_by_its_owner_only(places: Places) -> None:
    upload, used = blob(content=bytes(range(256)) * 9), blob(session="s-1", content=b"x")
    async with places.opened() as store:
        for each in (upload, used):
            await store.put(each)
    async with places.opened() as store:  # durable, and for every process
        for each in (upload, used):
            assert await store.get(each.info.key) == each
            assert await store.find(each.info.key) == each.info
            for owner in (BOB, OTHER):
                stranger = msgspec.structs.replace(each.info.key, owner=owner)
                assert await store.get(stranger) is None
                assert await store.find(stranger) is None
                assert not await store.delete(stranger)
        elsewhere = msgspec.structs.replace(used.info.key, session="")
        assert await store.get(elsewhere) is None
        again = Blob(msgspec.structs.replace(used.info, bytes=2), b"yz")
        await store.put(again)
        assert await store.get(used.info.key) == again
        assert await store.delete(upload.info.key)
        assert not await store.delete(upload.info.key)
        assert await store.get(upload.info.key) is None
        assert await store.files_of_session(SessionKey("acme", "ada", "s-1")) == (again.info,)


async def test_pages_have_every_file_once(places: Places) -> None:
    stored = [blob(session=each) for each in ("", "", "", "a", "a-b", "b", "b")]
    async with places.opened() as store:
        for each in (*stored, blob(BOB), blob(OTHER, "a")):
            await store.put(each)
        for limit in (1, 2, 3, 7, 50):
            found: list[BlobInfo] = []
            after, has_more = None, True
            while has_more:
                page = await store.files(ADA, limit=limit, after=after)
                assert len(page.files) <= limit
                found += page.files
                has_more, after = page.has_more, page.files[-1].key
            ids = [each.key.id for each in found]
            assert sorted(ids) == sorted(each.info.key.id for each in stored)
            assert len(set(ids)) == len(ids)
            assert [bool(each.key.session) for each in found] == [False] * 3 + [True] * 4


async def test_sessions_and_owners_are_deleted_whole(places: Places) -> None:
    async with places.opened() as store:
        first, second = blob(session="one"), blob(session="one-more")
        others = [blob(BOB, "one"), blob(OTHER, "one")]
        upload = blob()
        for each in (first, second, *others, upload):
            await store.put(each)
        assert await store.delete_session(SessionKey("acme", "ada", "one")) == 1
        assert await store.find(second.info.key) == second.info
        assert await store.erase(ADA) == 2
        assert (await store.files(ADA, limit=9)).files == ()
        for each in others:
            assert await store.get(each.info.key) == each


async def test_an_owner_has_so_much_room(places: Places) -> None:
    async with places.opened(subject_bytes=100_000) as store:
        first = blob(content=b"a" * 60_000)
        await store.put(first)
        with pytest.raises(StorageExhausted):
            await store.put(blob(session="s", content=b"b" * 41_000))
        await store.put(blob(BOB, content=b"b" * 100_000))
        await store.put(first)  # in the place of itself
        await store.delete(first.info.key)
        await store.put(blob(content=b"c" * 100_000))


async def test_many_small_files_are_bounded_in_number(places: Places) -> None:
    """Each counts at least what it costs: a file of one byte is not for nothing."""
    async with places.opened(subject_bytes=5 * 16_384) as store:
        stored = [blob(content=b"x", session="s") for _ in range(5)]
        for each in stored:
            await store.put(each)
        await store.put(stored[0])  # in its own place
        with pytest.raises(StorageExhausted):
            await store.put(blob(content=b""))
        await store.delete(stored[1].info.key)
        await store.put(blob(content=b"x" * 16_384))
        with pytest.raises(StorageExhausted):
            await store.put(blob())


async def test_uploads_expire_in_parts_and_sessions_from_a_time_on(places: Places) -> None:
    now = time.time()
    async with places.opened() as store:
        uploads = [blob(created_at=now) for _ in range(5)]
        used = blob(session="s", created_at=now)
        for each in (*uploads, used):
            await store.put(each)
        key = SessionKey("acme", "ada", "s")
        assert await store.expire_uploads(now - 60, limit=2) == 0
        assert [await store.expire_uploads(now + 60, limit=2) for _ in range(3)] == [2, 2, 1]
        assert await store.delete_session(key, before=now - 60) == 0
        assert await store.get(used.info.key) == used
        assert await store.delete_session(key, before=now + 60) == 1


async def test_every_session_is_found_on_some_page(places: Places) -> None:
    async with places.opened() as store:
        wanted = {(owner, session) for owner in (ADA, BOB, OTHER) for session in ("s", "s-1", "t")}
        for owner, session in sorted(wanted, key=str):
            await store.put(blob(owner, session))
            await store.put(blob(owner, session))
        await store.put(blob())
        for limit in (1, 2, 50):
            found: list[tuple[Principal, str]] = []
            cursor: str | None = None
            while True:
                page = await store.sessions(limit=limit, cursor=cursor)
                for key, _ in page.sessions:
                    found.append((Principal(key.tenant, key.subject), key.session))
                cursor = page.cursor
                if cursor is None:
                    break
            assert len(found) == len(wanted)
            assert set(found) == wanted


async def _commit(store: SessionStore, key: SessionKey) -> None:
    turn = TurnRecord("trn_x.1", 1, time.time(), "one", None, (UserMessage("?"),), Usage())
    await store.commit(
        Commit(
            key=key,
            turn=turn,
            expected_version=0,
            agent="one",
            state={},
            expires_at=time.time() + 600,
        )
    )


async def test_what_no_session_has_is_swept(places: Places) -> None:
    """Of a session that was committed nothing; of one that never came to exist, everything."""
    async with places.opened() as blobs, open_memory_store() as sessions:
        kept, lost = blob(session="kept"), blob(session="lost")
        upload, fresh = blob(), blob(created_at=time.time() + 7_000)
        for each in (kept, lost, upload, fresh):
            await blobs.put(each)
        await _commit(sessions, SessionKey("acme", "ada", "kept"))
        sweep = FileSweep(blobs, sessions, every_seconds=0, upload_seconds=60, grace_seconds=3_600)
        early = 1_790_000_000.0 + 30 if places.kind == "files" else time.time() - 300
        assert await sweep.sweep(early) == 0
        late = time.time() + 3_700
        removed = await sweep.sweep(late)
        assert await blobs.get(kept.info.key) == kept
        assert await blobs.find(lost.info.key) is None
        assert await blobs.find(upload.info.key) is None
        # S3 has its own time of when it was stored.
        survives = places.kind == "files"
        assert (await blobs.find(fresh.info.key) is not None) == survives
        assert removed == (2 if survives else 3)


@examples(66, 1_000)
@given(st.text(max_size=80), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_an_id_is_read_back_or_refused(text: str, session: str) -> None:
    for key in (BlobKey(ADA, "", new_name()), BlobKey(ADA, session, new_name())):
        assert key_of(ADA, key.id) == key
    found = key_of(ADA, text)
    assert found is None or found.id == text


async def test_files_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails leaves nothing, not on a full disk either, and names no path."""
    async with Places("files", tmp_path, "").opened() as store:
        folder = tmp_path / "files"

        def fail(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "secret"))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(StoreUnavailable, match="No space left") as failed:
                await store.put(blob())
        assert str(folder) not in failed.value.detail
        assert (await store.files(ADA, limit=9)).files == ()
        assert _stored(folder) == set()


async def test_a_file_that_another_process_replaces_is_always_found(tmp_path: Path) -> None:
    place = Places("files", tmp_path, "")
    async with place.opened() as one, place.opened() as two:
        stored = blob(session="s")
        await one.put(stored)

        async def replace() -> None:
            for _ in range(60):
                await one.put(stored)

        replacing = asyncio.create_task(replace())
        while not replacing.done():
            assert await two.get(stored.info.key) == stored
        await replacing


async def test_what_a_kill_has_left_is_swept_by_several_at_once(tmp_path: Path) -> None:
    """A file that was written before the index named it; processes sweep at the same time."""
    place = Places("files", tmp_path, "")
    async with place.opened() as one, place.opened() as two, place.opened() as three:
        kept = blob(session="s")
        await one.put(kept)
        for index in range(300):
            left = tmp_path / "files" / f"{index % 3:02x}" / f"{index % 3:02x}{index:030x}"
            left.parent.mkdir(exist_ok=True)
            left.write_bytes(b"x")
        assert await one.expire_uploads(0.0, limit=9) == 0  # they may be written just now
        for each in (tmp_path / "files").rglob("*"):
            if len(each.name) == 32:
                os.utime(each, (1.0, 1.0))
        swept = await asyncio.gather(
            *(each.expire_uploads(0.0, limit=9) for each in (one, two, three))
        )
        assert sum(swept) == 300
        assert _stored(tmp_path / "files") == _named(tmp_path / "files")
        assert await one.get(kept.info.key) == kept


def _stored(folder: Path) -> set[str]:
    return {each.name for each in folder.rglob("*") if len(each.name) == 32}


def _named(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "index.db")) as index:
        return {row[0] for row in index.execute("SELECT file FROM files")}


async def test_files_of_all_and_of_a_tenant_have_bounds(tmp_path: Path) -> None:
    place = Places("files", tmp_path, "")
    async with (
        place.opened(tenant_bytes=100_000, total_bytes=150_000) as one,
        place.opened(tenant_bytes=100_000, total_bytes=150_000) as two,
    ):
        await one.put(blob(content=b"a" * 60_000))
        with pytest.raises(StorageExhausted, match="tenant"):
            await two.put(blob(BOB, content=b"a" * 60_000))
        await two.put(blob(OTHER, content=b"a" * 60_000))
        with pytest.raises(StorageExhausted, match="all"):
            await one.put(blob(Principal("third", "x"), content=b"a" * 60_000))
        await two.erase(ADA)
        await one.put(blob(Principal("third", "x"), content=b"a" * 60_000))


async def test_s3_is_not_used_with_a_wrong_key_or_bucket(s3: str) -> None:
    made = BlobSettings(store="s3", bucket=BUCKET, endpoint=s3, path_style=True)
    with pytest.raises(ConfigError, match="SignatureDoesNotMatch"):
        await open_blobs(made, ENVIRONMENT | {"AWS_SECRET_ACCESS_KEY": "another"})
    with pytest.raises(ConfigError, match="NoSuchBucket"):
        await open_blobs(msgspec.structs.replace(made, bucket="no-such-bucket"), ENVIRONMENT)


async def test_s3_by_the_name_of_the_host(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows buckets as names below its domain; the resolver of this machine does not."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def local(make: Any, host: str, port: int, **more: Any) -> Any:
        assert host == f"{BUCKET}.s3.test"
        return await connect(make, "127.0.0.1", port, **more)

    monkeypatch.setattr(loop, "create_connection", local)
    port = s3.rpartition(":")[2]
    made = BlobSettings(
        store="s3", bucket=BUCKET, endpoint=f"http://s3.test:{port}", prefix="by-host/"
    )
    store = await open_blobs(made, ENVIRONMENT)
    stored = blob(session="s")
    await store.put(stored)
    assert await store.get(stored.info.key) == stored
    await store.close()


async def test_botocore_reads_what_was_stored(s3: str) -> None:
    made = BlobSettings(store="s3", bucket=BUCKET, endpoint=s3, path_style=True, prefix="b/")
    store = await open_blobs(made, ENVIRONMENT)
    stored = blob(session="s", content=b"for botocore")
    await store.put(stored)
    await store.close()
    owner = owner_digest("acme", "ada")
    name = f"b/sessions/{owner}/s/{stored.info.key.name}"

    def read() -> dict[str, Any]:
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="eu-west-1",
            endpoint_url=s3,
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        answer: dict[str, Any] = client.get_object(Bucket=BUCKET, Key=name)
        return answer | {"Body": answer["Body"].read()}

    answer = await asyncio.to_thread(read)
    assert answer["Body"] == b"for botocore"
    assert answer["ContentType"] == "text/plain"


def _error(code: str, status: int) -> Recording:
    return Recording([f"<Error><Code>{code}</Code></Error>".encode()], status=status)


@pytest.mark.parametrize(
    ("recordings", "requests"),
    [
        ([_error("SlowDown", 503), _error("InternalError", 500), Recording([b"x"])], 3),
        ([_error("RequestTimeTooSkewed", 403), Recording([b"x"])], 2),
        ([_error("ExpiredToken", 400), Recording([b"x"])], 2),
        ([Recording([b"xx"], cut=True), Recording([b"x"])], 2),
    ],
    ids=["busy", "clock", "token", "cut"],
)
async def test_s3_is_asked_again_where_that_helps(
    recordings: list[Recording], requests: int
) -> None:
    async with playing(*recordings) as player, _client(player.url) as client:
        found = await client.get("a/b", limit=10, deadline=_soon())
        assert found is not None
        assert found[1] == b"x"
        assert len(player.requests) == requests


async def test_s3_is_not_asked_for_ever() -> None:
    async with playing(_error("SlowDown", 503)) as player, _client(player.url) as client:
        with pytest.raises(S3Unavailable):
            await client.get("a/b", limit=10, deadline=_soon())
        assert len(player.requests) == 4
    async with playing(_error("AccessDenied", 403)) as player, _client(player.url) as client:
        with pytest.raises(S3Refused):
            await client.head("a/b", deadline=_soon())
        assert len(player.requests) == 1

    def judge(_: Request) -> Recording:
        return Recording([b"y" * 100])

    async with playing(judge=judge) as player, _client(player.url) as client:
        with pytest.raises(S3Unavailable):
            await client.get("a/b", limit=10, deadline=_soon())
        with pytest.raises(S3Refused, match="not a key"):
            await client.get("../a b", limit=10, deadline=_soon())


def _soon() -> float:
    return asyncio.get_running_loop().time() + 10


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[S3Client]:
    http = HttpClient()
    yield S3Client(
        http,
        Fixed(),
        "bucket",
        region="eu-west-1",
        endpoint=url,
        path_style=True,
        chance=lambda: 0.01,
    )
    await http.close()


LISTED = """<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<IsTruncated>false</IsTruncated>{}</ListBucketResult>"""


def _listed(*keys: str) -> Recording:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size>"
        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    return Recording([LISTED.format(entries).encode()])


@asynccontextmanager
async def _s3_that_lists(
    *keys: str, rest: Recording
) -> AsyncIterator[tuple[BlobStore, list[Request]]]:
    """A store over an S3 that lists these keys, and answers everything else in one way."""

    def judge(request: Request) -> Recording:
        listing = request.method == "GET" and "list-type=2" in request.target
        return _listed(*keys) if listing else rest

    async with playing(judge=judge) as player:
        made = BlobSettings(store="s3", bucket=BUCKET, endpoint=player.url, path_style=True)
        store = await open_blobs(made, ENVIRONMENT)
        try:
            yield store, player.requests
        finally:
            await store.close()


async def test_every_failure_of_s3_is_that_of_a_store() -> None:
    """Also of calls that are made several at once: no group of errors, which nothing expects."""
    owner = owner_digest("acme", "ada")
    keys = [f"sessions/{owner}/s/{new_name()}" for _ in range(3)]
    session = SessionKey("acme", "ada", "s")
    async with _s3_that_lists(*keys, rest=_error("AccessDenied", 403)) as (store, _):
        for call in (
            lambda: store.files(ADA, limit=9),
            lambda: store.files_of_session(session),
            lambda: store.delete_session(session),
            lambda: store.delete(BlobKey(ADA, "s", new_name())),
            lambda: store.erase(ADA),
            lambda: store.sessions(limit=9),
        ):
            with pytest.raises(StoreUnavailable, match="AccessDenied"):
                await call()


async def test_objects_of_others_in_the_bucket_are_left_alone() -> None:
    """A folder's placeholder, or a name that is never signed here, does not end the sweep."""
    foreign = ("uploads/", "uploads/My%20File.txt", "sessions/", "sessions/a b/ä/c", "sessions/x/y")
    async with _s3_that_lists(*foreign, rest=Recording([b""])) as (store, requests):
        assert await store.expire_uploads(time.time(), limit=9) == 0
        assert await store.sessions(limit=9) == SessionFiles((), None)
        assert await store.erase(ADA) == 0
        assert {each.method for each in requests} == {"GET"}
