"""Arguments that a tool redacts are in no record and in no list, also if they were edited."""

import msgspec

from seawall.events import ToolCalled
from seawall.pipeline.decisions import Verdict
from seawall.settings import SessionSettings
from tests.pipeline.shop import ANN, RefundService, Script, ask, refund, shop, waits


async def test_edited_arguments_are_redacted_in_records(place: SessionSettings) -> None:
    service = RefundService()
    script = Script((refund("o1", 50, reason="secret one"),))
    service.says = "because of secret two"
    async with shop(place, script, service, approve="always", redact=("reason",)) as app:
        asked = await ask(app)
        listed = msgspec.json.encode(await waits(app)).decode()
        assert "[redacted]" in listed
        assert "secret" not in listed
        new = Verdict(
            decision="edit", arguments={"order": "o2", "amount": 20, "reason": "secret two"}
        )
        _, live = await app.engine.pipeline.decide(ANN, asked.request.id, "c1", new)
        assert live is not None
        events = [event async for _, event in live.follow()]
        assert events[: len(asked.events)] == asked.events
        (called,) = (each for each in events if isinstance(each, ToolCalled))
        assert msgspec.json.decode(called.arguments)["reason"] == "[redacted]"
        assert service.done == ["o2"]
        records = (await app.engine.store.audit(limit=10)).records
        assert [each.kind for each in records] == ["decision", "effect"]
        for each in records:
            arguments = msgspec.json.decode(each.arguments)
            assert arguments == {"order": "o2", "amount": 20, "reason": "[redacted]"}
            assert "secret" not in msgspec.json.encode(each).decode()
