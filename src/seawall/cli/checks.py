"""The checks of `seawall doctor`: each is of one thing that a server needs."""

import asyncio
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, structs

from seawall.cli.arguments import plural
from seawall.config import Settings
from seawall.errors import ConfigError, SeawallError
from seawall.settings import BlobSettings, ModelSettings, SessionSettings
from seawall.transport.connection import TransportError
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["Check", "Status", "run_checks"]

_SECONDS = 5.0  # for each upstream
_START_SECONDS = 60.0
_LEAST_FREE_BYTES = 1 << 30
_CLOCK_WARNING_SECONDS = 5.0
_CLOCK_FAILURE_SECONDS = 60.0  # beyond it tokens and AWS's signatures are refused
_SPARE_DESCRIPTORS = 512
_PACKAGES = ("msgspec", "cryptography", "httptools", "numpy", "uvicorn", "uvloop", "numba")
_DEFAULT_URLS = {
    "responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
}

Status = Literal["ok", "warning", "failed"]


class Check(Struct, frozen=True):
    """What a check found.

    Attributes:
        name: What was looked at, such as `models.default`.
        status: "failed" where a server would not start or could not answer turns.
        detail: What was found.
        advice: What to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""


Report = Callable[[Check], None]


async def run_checks(
    settings: Settings, report: Report, opened: Callable[["Orchestrator"], Awaitable[None]]
) -> None:
    """Run all checks, and report each as soon as it is done.

    Args:
        settings: What is checked.
        report: Called with each finding.
        opened: Called while everything is open as a server opens it.
    """
    for check in (
        _versions(),
        *_identity(settings),
        *_memory(settings),
        *_limits(settings),
        *_knowledge(settings),
    ):
        report(check)
    receiver = settings.telemetry.endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    client = _client(settings, receiver, report)
    clock = _Clock()
    try:
        checks: list[Awaitable[Check]] = [_store(settings.sessions)]
        checks += [
            _model(name, each, client, clock) for name, each in sorted(settings.models.items())
        ]
        if settings.blobs is not None:
            checks.append(_files(settings.blobs))
        jwt = settings.identity.jwt
        if jwt is not None and jwt.jwks_url:
            checks.append(_key_set(jwt.jwks_url, client, clock))
        if receiver:
            checks.append(_receiver(receiver, client, clock))
        for done in asyncio.as_completed(checks):
            report(await done)
    finally:
        await client.close()
    for check in clock.findings():
        report(check)
    report(await _start(settings, opened))


def _client(settings: Settings, receiver: str, report: Report) -> HttpClient:
    """What the upstreams are reached with, and verified by."""
    from seawall.composition import open_client  # noqa: PLC0415 - imports much
    from seawall.transport.tls import tls_context  # noqa: PLC0415 - only here

    file = settings.telemetry.ca_file or os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE", "")
    try:
        client = open_client(settings)
        if file and receiver:
            context = tls_context(file, key="telemetry.ca_file")
            client.trust(Endpoint.parse(receiver).origin, context)
    except (ConfigError, ValueError) as error:
        report(Check("certificates", "failed", str(error), "check the file and its path"))
        return HttpClient()
    return client


def _versions() -> Check:
    found = []
    for name in ("seawall", *_PACKAGES):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Check("versions", "ok", f"Python {platform.python_version()}, {', '.join(found)}")


def _identity(settings: Settings) -> Iterator[Check]:
    identity = settings.identity
    if identity.warning:
        closed = identity.jwt is None and not identity.api_keys and not identity.anonymous
        yield Check("identity", "failed" if closed else "warning", f"{identity.warning}.")
        return
    ways = ["tokens"] * (identity.jwt is not None)
    ways += [plural(len(identity.api_keys), "API key")] * bool(identity.api_keys)
    yield Check("identity", "ok", " and ".join(ways))


def _memory(settings: Settings) -> Iterator[Check]:
    names = sorted(name for name, each in settings.agents.items() if each.memory)
    identity = settings.identity
    if names and identity.jwt is None and not identity.api_keys:
        yield Check(
            "memory",
            "warning",
            f"{', '.join(names)}: nothing is remembered, as no caller has a credential.",
            "Configure [identity.jwt] or [[identity.api_keys]].",
        )


def _limits(settings: Settings) -> Iterator[Check]:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    upstreams = min(
        settings.admission.in_flight,
        sum(each.max_connections for each in settings.models.values() if each.kind != "local"),
    )
    needed = settings.server.max_connections + upstreams + _SPARE_DESCRIPTORS
    if hard in (resource.RLIM_INFINITY, -1) or hard >= needed:
        yield Check("open files", "ok", f"{hard} allowed, {needed} needed by a full worker")
    else:
        yield Check(
            "open files",
            "warning",
            f"{hard} allowed, {needed} needed by a full worker; beyond that, idle connections are "
            "closed",
            "raise the limit (ulimit -n, LimitNOFILE=), or lower server.max_connections",
        )


async def _store(settings: SessionSettings) -> Check:
    if settings.store == "sqlite":
        return await asyncio.to_thread(_sqlite, Path(settings.path))
    from seawall.storage.open import open_store  # noqa: PLC0415 - imports the adapter

    name = f"sessions (table {settings.table})"
    try:
        async with asyncio.timeout(_SECONDS):
            store = await open_store(structs.replace(settings, create_table=False))
    except SeawallError as error:
        advice = "" if not settings.create_table else "sessions.create_table makes it at the start"
        return Check(name, "failed", str(error), advice)
    except TimeoutError:
        return Check(name, "failed", f"no answer within {_SECONDS:g} s", "check region and network")
    await store.close()
    return Check(name, "ok", "reached, and the table is of this version")


def _knowledge(settings: Settings) -> Iterator[Check]:
    """Whether the index of each folder of documents is there, and is of what the folder has."""
    for name, each in settings.knowledge.items():
        from seawall.knowledge.status import check_index  # noqa: PLC0415 - only if configured

        key = f"knowledge.{name}"
        state = check_index(name, each, contents=True)
        if state.fault:
            yield Check(key, "failed", state.fault, state.advice)
        elif state.stale:
            yield Check(key, "warning", state.stale, state.advice)
        else:
            yield Check(key, "ok", state.detail)


async def _files(settings: BlobSettings) -> Check:
    if settings.store == "files":
        return await asyncio.to_thread(_folder, Path(settings.path))
    from seawall.storage.open_blobs import open_blobs  # noqa: PLC0415 - imports the adapter

    name = f"files (bucket {settings.bucket})"
    try:
        async with asyncio.timeout(_SECONDS):
            store = await open_blobs(settings)
    except SeawallError as error:
        return Check(name, "failed", str(error), "check the bucket, its region and permissions")
    except TimeoutError:
        return Check(name, "failed", f"no answer within {_SECONDS:g} s", "check region and network")
    await store.close()
    return Check(name, "ok", "reached, and can be listed")


def _folder(path: Path) -> Check:
    name, there = f"files ({path})", path if path.is_dir() else path.absolute().parent
    if not there.is_dir():
        return Check(name, "failed", f"there is no folder {there}", f"mkdir -p {there}")
    if not os.access(there, os.W_OK):
        return Check(name, "failed", f"{there} is not writable for this user", "chown it")
    return Check(name, "ok", "exists" if path.is_dir() else "is made at the first start")


def _sqlite(path: Path) -> Check:
    name, folder = f"sessions ({path})", path.absolute().parent
    if (wrong := _database(name, path)) is not None:
        return wrong
    if not folder.is_dir():
        return Check(name, "failed", f"there is no folder {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        return Check(name, "failed", f"{folder} is not writable for this user", "chown or chmod it")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        return Check(name, "warning", f"{free >> 20} MiB free on its disk", "make room")
    state = "exists" if path.exists() else "is made at the first start"
    return Check(name, "ok", f"{state}; {free >> 30} GiB free on its disk")


def _database(name: str, path: Path) -> Check | None:
    """What is wrong with a database that exists; None for nothing."""
    if not path.exists():
        return None
    if path.is_dir():
        return Check(name, "failed", "is a folder", "move it away, or change sessions.path")
    if not os.access(path, os.R_OK | os.W_OK):
        return Check(name, "failed", "is not writable for this user", "chown or chmod it")
    # Immutable: otherwise -wal and -shm files are left behind, which are this user's.
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as opened:
            opened.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return Check(name, "failed", str(error), "restore a backup, or move the file away")
    if path.stat().st_mode & 0o077:
        return Check(name, "warning", "other users may read it", f"chmod 600 {path}")
    return None


async def _model(name: str, settings: ModelSettings, client: HttpClient, clock: "_Clock") -> Check:
    name = f"models.{name}"
    if settings.kind == "local":
        return Check(name, "ok", "runs in the server itself; it is loaded below")
    secret = _secret(name, settings)
    if isinstance(secret, Check):
        return secret
    base = (settings.base_url or _DEFAULT_URLS.get(settings.kind, "")).rstrip("/")
    if settings.kind == "bedrock":
        from seawall.aws import endpoint_url, find_region  # noqa: PLC0415

        base = base or endpoint_url("bedrock-runtime", find_region(os.environ, settings.region))
        return await _reach(name, base, client, clock)
    if settings.kind == "anthropic":
        headers = [(b"x-api-key", secret.encode()), (b"anthropic-version", b"2023-06-01")]
    else:
        headers = [(b"authorization", b"Bearer " + secret.encode())] if secret else []
    return await _reach(
        name, f"{base}/models", client, clock, headers=headers, model=settings.model
    )


def _secret(name: str, settings: ModelSettings) -> str | Check:
    """The API key of a model, empty where it has none; or why it cannot be had."""
    if settings.api_key_env:
        secret = os.environ.get(settings.api_key_env, "")
        unset = f"the variable {settings.api_key_env} is not set"
        return secret or Check(name, "failed", unset, f"export {settings.api_key_env}=…")
    if settings.api_key_file:
        try:
            return Path(settings.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            return Check(name, "failed", f"{settings.api_key_file}: {error}")
    return ""


async def _key_set(url: str, client: HttpClient, clock: "_Clock") -> Check:
    return await _reach("identity.jwt.jwks_url", url, client, clock, must_be_found=True)


async def _receiver(url: str, client: HttpClient, clock: "_Clock") -> Check:
    return await _reach("telemetry.endpoint", url, client, clock)


async def _reach(
    name: str,
    url: str,
    client: HttpClient,
    clock: "_Clock",
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    model: str = "",
    must_be_found: bool = False,
) -> Check:
    """Whether an upstream answers, and takes the key. Nothing that costs money is asked."""
    began = time.monotonic()
    try:
        response = await client.request(
            "GET",
            Endpoint.parse(url),
            headers=headers or [],
            deadline=asyncio.get_running_loop().time() + _SECONDS,
            limit=4 << 20,
        )
    except ValueError as error:  # of the URL, or of the key as a header
        return Check(name, "failed", f"{url}: {error}", "check the address and the key")
    except (TransportError, TimeoutError) as error:
        return Check(name, "failed", f"{url}: {error}", "check the address, DNS and firewalls")
    took = (time.monotonic() - began) * 1e3
    clock.record(name, response)
    detail = f"{url} answered {response.status} in {took:.0f} ms"
    return _judge(
        name, response, detail, key=headers is not None, model=model, must_be_found=must_be_found
    )


def _judge(
    name: str,
    response: BufferedResponse,
    detail: str,
    *,
    key: bool,
    model: str,
    must_be_found: bool,
) -> Check:
    """The finding for an upstream that answered.

    Args:
        name: Of the check.
        response: Its answer.
        detail: What is reported about the answer.
        key: Whether it had to accept a key.
        model: Name that its list of models must have; empty if it was not asked for the list.
        must_be_found: Whether only the status 200 will do.
    """
    if response.status in (401, 403) and key:
        return Check(
            name, "failed", f"{detail}: the key is refused", "check the key and its rights"
        )
    if response.status >= 500:
        return Check(name, "warning", detail, "ask its operator")
    if model and response.status == 404:
        advice = "check base_url, which often ends in /v1; some servers have no list of models"
        return Check(name, "warning", detail, advice)
    if must_be_found and response.status != 200:
        return Check(name, "failed", detail, "check the address")
    listed = _listed(response) if model and response.status == 200 else ()
    if listed and model not in listed:
        known = ", ".join(sorted(listed)[:8])
        return Check(
            name, "warning", f"{detail}; it does not list {model!r}", f"it lists, e.g., {known}"
        )
    return Check(name, "ok", detail)


class _Entry(Struct):
    id: str


class _Models(Struct):
    data: list[_Entry]


def _listed(response: BufferedResponse) -> tuple[str, ...]:
    try:
        return tuple(each.id for each in msgspec.json.decode(response.body, type=_Models).data)
    except msgspec.DecodeError:
        return ()


class _Clock:
    """Compares this machine's clock with those of the upstreams that were reached."""

    def __init__(self) -> None:
        self._offsets: dict[str, float] = {}

    def record(self, name: str, response: BufferedResponse) -> None:
        """Take the time that an answer was sent at."""
        try:
            sent = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except ValueError:
            return
        self._offsets[name] = time.time() - sent

    def findings(self) -> Iterator[Check]:
        """One check, if any upstream has said what time it is."""
        if not self._offsets:
            return
        name, offset = min(self._offsets.items(), key=lambda each: abs(each[1]))
        if abs(offset) < _CLOCK_WARNING_SECONDS:
            yield Check("clock", "ok", f"within {_CLOCK_WARNING_SECONDS:g} s of {name}'s")
            return
        failed = abs(offset) >= _CLOCK_FAILURE_SECONDS
        yield Check(
            "clock",
            "failed" if failed else "warning",
            f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} {name}'s",
            "synchronise it (NTP): tokens and signatures are judged by it",
        )


async def _start(settings: Settings, opened: Callable[["Orchestrator"], Awaitable[None]]) -> Check:
    """Open everything as a server does, but with an empty store of its own."""
    from seawall.orchestrator import Orchestrator  # noqa: PLC0415 - imports all that a turn needs

    name = "start"
    with tempfile.TemporaryDirectory(prefix="seawall-doctor-") as folder:
        alone = structs.replace(
            settings,
            sessions=structs.replace(
                settings.sessions, store="sqlite", path=str(Path(folder, "sessions.db"))
            ),
            telemetry=structs.replace(settings.telemetry, endpoint=""),
            routing=structs.replace(settings.routing, classifier_cache=""),
        )
        if settings.blobs is not None:
            files = structs.replace(settings.blobs, store="files", path=str(Path(folder, "files")))
            alone = structs.replace(alone, blobs=files)
        app = Orchestrator(alone)
        began = time.monotonic()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await app.open(cold_start=True)
        except SeawallError as error:
            return Check(name, "failed", str(error))
        except TimeoutError:
            return Check(name, "failed", f"not done after {_START_SECONDS:g} s")
        took = time.monotonic() - began
        try:
            await opened(app)
        finally:
            await app.close(0.0)
    agents = ", ".join(sorted(settings.agents))
    return Check(name, "ok", f"agents {agents}; opened in {took:.1f} s")
