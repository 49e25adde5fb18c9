"""Files sent by the clients of user interfaces, unmodified: the AI SDK's and AG-UI's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.attachments.pictures import data_url, photo
from tests.hosts.test_effects_api import keys_of_callers
from tests.parts import require, ui_clients
from tests.servers import ServerProcess, running

AI_SDK = """
import { Chat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
const [url, key, image] = process.argv.slice(2);
const chat = new Chat({
  id: 'with-file',
  transport: new DefaultChatTransport({
    api: `${url}/v1/ui/chat`, headers: { authorization: `Bearer ${key}` },
  }),
});
await chat.sendMessage({
  text: JSON.stringify(['Seen.']),
  files: [{ type: 'file', mediaType: 'image/jpeg', filename: 'car.jpg', url: image }],
});
const answer = chat.messages.at(-1);
const text = answer.parts.filter(each => each.type === 'text').map(each => each.text).join('');
console.log(JSON.stringify({ status: chat.status, text, error: chat.error?.message ?? '' }));
"""
AG_UI = """
import { HttpAgent } from '@ag-ui/client';
const [url, key, image] = process.argv.slice(2);
const agent = new HttpAgent({
  url: `${url}/v1/ag-ui`, threadId: 'with-image', headers: { authorization: `Bearer ${key}` },
});
const value = image.split(',')[1];
agent.addMessage({
  id: 'user-1', role: 'user', content: [
    { type: 'text', text: JSON.stringify(['Seen.']) },
    { type: 'image', source: { type: 'data', value, mimeType: 'image/jpeg' },
      metadata: { filename: 'car.jpg' } },
  ],
});
let error = '';
await agent.runAgent().catch(failure => { error = failure.message; });
console.log(JSON.stringify({ text: agent.messages.at(-1).content, error }));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    require(ui_clients.missing())
    folder = tmp_path_factory.mktemp("client-files")
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_BLOBS__PATH": str(folder / "files"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.ui_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


@pytest.mark.parametrize(
    ("program", "session"),
    [(AI_SDK, "with-file"), (AG_UI, "with-image")],
    ids=["ai-sdk", "ag-ui"],
)
def test_a_photo_is_part_of_the_session(server: ServerProcess, program: str, session: str) -> None:
    image = data_url(photo())
    printed = json.loads(ui_clients.run_text(program, server.url, "sw_ann", image))
    assert printed["error"] == ""
    assert printed["text"] == "Seen."
    with httpx2.Client(base_url=server.url, headers={"authorization": "Bearer sw_ann"}) as client:
        shown: dict[str, Any] = client.get(f"/v1/sessions/{session}").json()
        (file,) = shown["turns"][0]["messages"][0]["attachments"]
        assert file["name"] == "car.jpg"
        content = client.get(f"/v1/files/{file['id']}/content")
    assert content.headers["content-type"] == "image/jpeg"
    assert len(content.content) == file["bytes"]

    # Nothing that a client chooses becomes the name of a file.
    folder = Path(server.environment["SEAWALL_BLOBS__PATH"])
    names = {each.name for each in folder.rglob("*")}
    assert names
    assert not any("car" in each or "with" in each for each in names)
