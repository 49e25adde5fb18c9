"""Attachments in the form of each provider; test_oracles checks it by the makers' descriptions."""

import asyncio
import base64
import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from seawall.models import ModelRequest, Prompt, estimate_prompt_tokens, prompt_bytes
from seawall.models.attachments import LoadedContents, ShownMessage
from seawall.transport.http_client import HttpClient
from seawall.turn import AssistantMessage, Attachment, Message, UserMessage
from tests.attachments.pictures import pdf, photo
from tests.models.player import Recording, playing
from tests.models.wire import WIRES, Wire

ANTHROPIC, OPENAI, RESPONSES = (
    next(each for each in WIRES if each.name == name)
    for name in ("anthropic", "openai", "responses")
)
each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)

STORED = {
    "file-s.1" + "0" * 31: ("image/jpeg", "car.jpg", photo()),
    "file-s.2" + "0" * 31: ("application/pdf", "bill (1)/[x].pdf", pdf()),
    "file-s.3" + "0" * 31: ("text/plain", "list.csv", "ä;b\n".encode()),
    "file-s.4" + "0" * 31: ("image/png", "", photo("PNG")),
}
IMAGE, DOCUMENT, TEXT, SECOND = (
    Attachment(name, media_type, shown, len(content), 1_000)
    for name, (media_type, shown, content) in STORED.items()
)


class Loaded:
    def __init__(self, source: "Contents", found: Mapping[str, bytes]) -> None:
        self._source = source
        self._found = found

    @property
    def found(self) -> Mapping[str, bytes]:
        return self._found

    def release(self) -> None:
        self._source.released += 1


class Contents:
    """Implements `Contents` over a dictionary; counts what is loaded and released."""

    def __init__(self, without: str = "") -> None:
        self.asked: list[str] = []
        self.loads = self.released = 0
        self._without = without

    async def load(self, attachments: Sequence[Attachment], *, deadline: float) -> LoadedContents:
        assert deadline > 0
        self.loads += 1
        self.asked = [each.id for each in attachments]
        return Loaded(self, {each: STORED[each][2] for each in self.asked if each != self._without})


def asking(*messages: Message, contents: Contents | None = None) -> ModelRequest:
    return ModelRequest(
        Prompt("Be brief."), messages, 200, contents=Contents() if contents is None else contents
    )


ALL = (
    UserMessage("What is this?", (IMAGE, DOCUMENT, TEXT)),
    AssistantMessage("A car."),
    UserMessage("", (SECOND,)),
)


async def sent(wire: Wire, request: ModelRequest, **settings: Any) -> dict[str, Any]:
    async with playing(Recording(wire.answer(["Yes."]))) as player:
        client = HttpClient()
        model = wire.model(player.url, client, **settings)
        deadline = asyncio.get_running_loop().time() + 20
        async for _ in model.stream(request, deadline=deadline):
            pass
        await client.close()
        document: dict[str, Any] = player.requests[0].document
        return document


@each_wire
async def test_each_provider_gets_the_bytes_in_its_own_form(wire: Wire) -> None:
    document = await sent(wire, asking(*ALL), vision=True, documents=True)
    messages = document["input" if wire is RESPONSES else "messages"]
    first, last = [each["content"] for each in messages if each["role"] == "user"]
    jpeg, png, bill = (
        base64.b64encode(STORED[each.id][2]).decode() for each in (IMAGE, SECOND, DOCUMENT)
    )
    if wire is ANTHROPIC:
        assert first[0]["source"] == {"type": "base64", "media_type": "image/jpeg", "data": jpeg}
        assert first[1]["source"]["data"] == bill
        assert first[1]["title"] == DOCUMENT.name
        assert [each["type"] for each in first] == ["image", "document", "text"]
        assert [each["type"] for each in last] == ["image"]
    elif wire is OPENAI:
        assert first[0]["image_url"]["url"] == f"data:image/jpeg;base64,{jpeg}"
        assert first[1]["file"] == {
            "filename": DOCUMENT.name,
            "file_data": f"data:application/pdf;base64,{bill}",
        }
        assert last[0]["image_url"]["url"] == f"data:image/png;base64,{png}"
    elif wire is RESPONSES:
        assert first[0]["image_url"] == f"data:image/jpeg;base64,{jpeg}"
        assert first[1]["file_data"] == f"data:application/pdf;base64,{bill}"
    else:
        assert first[0]["image"] == {"format": "jpeg", "source": {"bytes": jpeg}}
        assert first[1]["document"]["source"] == {"bytes": bill}
        assert DOCUMENT.name not in first[1]["document"]["name"]
        assert last[0]["image"]["format"] == "png"
    assert "ä;b\n" in first[-1]["text"]
    assert first[-1]["text"].endswith("What is this?")


@each_wire
async def test_what_a_model_does_not_take_is_named_and_not_loaded(wire: Wire) -> None:
    contents = Contents()
    document = await sent(wire, asking(*ALL, contents=contents))
    text = json.dumps(document, ensure_ascii=False)
    assert contents.asked == [TEXT.id]
    assert text.count("You cannot be shown images") == 2
    assert text.count("You cannot be shown documents") == 1
    assert all(base64.b64encode(STORED[each.id][2])[:40].decode() not in text for each in (IMAGE,))
    assert "ä;b" in text


@each_wire
async def test_what_is_not_stored_any_more_is_named(wire: Wire) -> None:
    contents = Contents(without=IMAGE.id)
    document = await sent(wire, asking(*ALL, contents=contents), vision=True, documents=True)
    text = json.dumps(document)
    assert text.count("It is not available any more.") == 1
    assert "car.jpg" in text


@pytest.fixture
def young() -> Iterator[Callable[[], list[Any]]]:
    """Returns the objects made since the test began: without a collection, none becomes older."""
    gc.collect(0)
    gc.disable()
    yield lambda: gc.get_objects(generation=0)
    gc.enable()


@each_wire
async def test_memory_is_given_back_when_the_answer_begins(
    wire: Wire, young: Callable[[], list[Any]]
) -> None:
    contents = Contents()
    request = asking(*ALL, contents=contents)
    async with playing(Recording(wire.answer(["a", "b"]), seconds=0.01)) as player:
        client = HttpClient()
        model = wire.model(player.url, client, vision=True)
        deadline = asyncio.get_running_loop().time() + 20
        released = []
        async for _ in model.stream(request, deadline=deadline):
            released.append(contents.released)
            in_memory = [each for each in young() if isinstance(each, ShownMessage)]
            assert in_memory == []  # nor anything of the bytes
        assert set(released) == {1}
        assert contents.released == 1
        await client.close()
    refused = asking(*ALL, contents=(failing := Contents()))
    async with playing(Recording([b"{}"], status=500)) as player:
        client = HttpClient()
        model = wire.model(player.url, client, vision=True)
        with pytest.raises(Exception, match=r"answered|failed|status"):
            async for _ in model.stream(refused, deadline=deadline):
                pass
        await client.close()
    assert (failing.loads, failing.released) == (1, 1)


@each_wire
async def test_requests_without_attachments_are_as_they_were(wire: Wire) -> None:
    plain = (UserMessage("a"), AssistantMessage("b"), UserMessage("c"))
    contents = Contents()
    with_source = await sent(wire, asking(*plain, contents=contents), vision=True)
    without = await sent(wire, ModelRequest(Prompt("Be brief."), plain, 200), vision=True)
    assert with_source == without
    assert contents.loads == 0


def test_estimates_count_what_a_model_reads_for_them() -> None:
    plain = asking(*(UserMessage(each.text) for each in ALL if isinstance(each, UserMessage)))
    shown = asking(*(each for each in ALL if isinstance(each, UserMessage)))
    assert estimate_prompt_tokens(shown) - estimate_prompt_tokens(plain) == 4_000
    assert prompt_bytes(shown) - prompt_bytes(plain) == 16_000


@each_wire
async def test_a_file_that_is_sent_again_is_shown_once(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same message, and in a later one as the copy of its session."""
    copy = msgspec.structs.replace(DOCUMENT, id=DOCUMENT.id.replace("file-s.", "file-"))
    monkeypatch.setitem(STORED, copy.id, STORED[DOCUMENT.id])
    messages = (
        UserMessage("One", (copy, copy, TEXT)),
        AssistantMessage("Yes."),
        UserMessage("Two", (TEXT, DOCUMENT, IMAGE)),
    )
    contents = Contents()
    request = asking(*messages, contents=contents)
    text = json.dumps(await sent(wire, request, vision=True, documents=True), ensure_ascii=False)
    assert text.count(base64.b64encode(STORED[DOCUMENT.id][2]).decode()) == 1
    assert text.count("\u00e4;b") == 1
    assert text.count("again; it is shown above") == 3
    assert sorted(contents.asked) == sorted({copy.id, DOCUMENT.id, TEXT.id, IMAGE.id})


@each_wire
async def test_a_copy_that_is_still_stored_is_shown(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one has expired: the later one is shown, and not only named."""
    gone = msgspec.structs.replace(DOCUMENT, id=DOCUMENT.id.replace("file-s.", "file-t."))
    monkeypatch.setitem(STORED, gone.id, STORED[DOCUMENT.id])
    messages = (UserMessage("One", (gone,)), UserMessage("Two", (DOCUMENT,)))
    request = asking(*messages, contents=Contents(without=gone.id))
    text = json.dumps(await sent(wire, request, vision=True, documents=True))
    assert text.count(base64.b64encode(STORED[DOCUMENT.id][2]).decode()) == 1
    assert text.count("not available any more") == 1
