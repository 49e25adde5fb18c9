"""Hand-overs on Lambda, whose environments do nothing between invocations."""

import asyncio
import hashlib
from pathlib import Path

from tests.aws_lambda.running import Site, running
from tests.aws_lambda.samples import OTHERS
from tests.pipeline.test_handover import SECRET, Receiver

APP = "tests.hosts.handover_app:app"
KEY = "sw_ann"
CALLER = {"authorization": f"Bearer {KEY}"}


def _variables(folder: Path, url: str, **more: str) -> dict[str, str]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.1",
        "SEAWALL_IDENTITY__API_KEYS": f'[{{sha256 = "{digest}", tenant = "a", subject = "ann"}}]',
        "SEAWALL_HANDOVER__URL": url,
        "DESK_SECRET": SECRET,
        **more,
    }


async def _invoke_until(site: Site, receiver: Receiver, count: int) -> None:
    """Invoke the function as a schedule does, until so many notifications were received."""
    async with asyncio.timeout(40):
        while len(receiver.received) < count:
            assert await site.invoke(OTHERS["scheduled"]) is None
            await asyncio.sleep(0.2)


async def test_a_schedule_repeats_notifications_and_ends_what_has_expired(tmp_path: Path) -> None:
    receiver = Receiver(500)
    async with receiver.open() as url:
        variables = _variables(tmp_path, url, SEAWALL_HANDOVER__SECONDS="9")
        async with running(APP, environment=variables) as site:
            asked = await site.client.post("/v1/turns", json={"text": "A person!"}, headers=CALLER)
            assert asked.status_code == 202, asked.text
            session = asked.json()["session"]
            # The environment takes the next invocation when the first delivery has ended.
            await site.client.get(f"/v1/sessions/{session}", headers=CALLER)
            assert len(receiver.received) == 1
            await _invoke_until(site, receiver, 3)
            kinds = [each["type"] for each in receiver.bodies]
            assert kinds == ["handover.requested", "handover.requested", "handover.ended"]
            assert receiver.received[0][0]["webhook-id"] == receiver.received[1][0]["webhook-id"]
            assert receiver.bodies[2]["outcome"] == "expired"
            await site.invoke(OTHERS["scheduled"])  # after the turn that has gone on
            shown = await site.client.get(f"/v1/sessions/{session}", headers=CALLER)
            assert [each["status"] for each in shown.json()["turns"]] == ["completed"]
