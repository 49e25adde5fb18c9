"""A served server whose database goes away, as its clients see it."""

from pathlib import Path

import httpx2
import pytest

from tests.servers import running_model, running_server


def test_turns_are_not_acknowledged_without_the_database(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Regression: four turns were acknowledged into nothing."""
    folder = tmp_path_factory.mktemp("lost")
    path = folder / "kept.db"
    settings = {
        "SESSIONS__PATH": str(path),
        "SERVER__WORKERS": "2",
        "IDENTITY__ANONYMOUS": "true",
    }
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(folder, model, **settings) as server,
        httpx2.Client(base_url=server.url, timeout=20) as client,
    ):
        session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
        assert {_mode(each) for each in folder.glob("kept.db*")} == {0o600}
        path.unlink()
        codes = []
        for _ in range(12):
            for body in ({"text": "hello"}, {"text": "and", "session": session}):
                refused = client.post("/v1/turns", json=body)
                assert refused.status_code == 503
                codes.append(refused.json()["code"])
        assert set(codes) <= {"commit-unknown", "store-unavailable"}
        assert codes[-4:] == ["store-unavailable"] * 4
        assert client.get("/livez").status_code == 200
        assert not path.exists()  # it was not opened anew


def test_a_number_that_only_the_database_rejects_is_a_client_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("numbers")
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(folder, model, SERVER__WORKERS="1", IDENTITY__ANONYMOUS="true") as server,
        httpx2.Client(base_url=server.url, timeout=20) as client,
    ):
        session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
        for cursor in ("OTIyMzM3MjAzNjg1NDc3NTgwOA==", "LTE=", "MA=="):  # 2**63, -1, 0
            refused = client.get(f"/v1/sessions/{session}", params={"cursor": cursor})
            assert (refused.status_code, refused.json()["field"]) == (422, "cursor")
        for name in ("%00", "a%00b", "%F0%9F%98%80" * 64, "%23" * 64):
            assert client.get(f"/v1/sessions/{name}").status_code == 404
            assert client.delete(f"/v1/sessions/{name}").status_code == 404
            assert client.get(f"/v1/turns/trn_{name}.1/events").status_code == 404


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
