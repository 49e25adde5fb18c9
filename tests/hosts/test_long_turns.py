"""A turn that takes longer than its session's lease."""

import threading
import time
from pathlib import Path

from tests.hosts.conftest import Pair, identity
from tests.issuer import Issuer
from tests.servers import running_model, running_server


def test_the_next_turn_waits_for_one_that_outlasts_its_lease(
    tmp_path: Path, issuer: Issuer
) -> None:
    with (
        running_model("--first-token", "0.05", "--duration", "1.6") as model,
        running_server(
            tmp_path,
            model,
            SERVER__WORKERS="1",
            SESSIONS__LEASE_SECONDS="1",
            **identity(tmp_path, issuer),
        ) as server,
    ):
        pair = Pair(server, model, issuer, tmp_path)
        with pair.client() as client, pair.client() as other:
            session = client.post("/v1/turns", json={"text": "one"}).json()["session"]
            answers = {}

            def ask() -> None:
                answers["two"] = client.post("/v1/turns", json={"text": "two", "session": session})

            asking = threading.Thread(target=ask)
            asking.start()
            while pair.model_stats()["started"] < 2:
                time.sleep(0.05)
            answers["three"] = other.post("/v1/turns", json={"text": "three", "session": session})
            asking.join()
            assert {name: each.status_code for name, each in answers.items()} == {
                "two": 200,
                "three": 200,
            }
            assert {name: each.json()["version"] for name, each in answers.items()} == {
                "two": 2,
                "three": 3,
            }
            shown = client.get(f"/v1/sessions/{session}").json()
        assert (shown["version"], len(shown["turns"])) == (3, 3)
        assert pair.model_stats()["started"] == 3
