"""`seawall doctor`: what is missing is found and named, with a remedy."""

import json
import sqlite3
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.cli.test_init import seawall
from tests.servers import running_model


def configured(folder: Path, url: str, more: str = "", model: str = "simulated") -> Path:
    folder.joinpath("seawall.toml").write_text(
        f'[models.default]\nbase_url = "{url}"\nmodel = "{model}"\n'
        f'[agents.helper]\ninstructions = "Help."\n'
        f"[identity]\nanonymous = true\n{more}"
    )
    return folder


def doctor(folder: Path, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = seawall("doctor", "--json", folder=folder, **environment)
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)}


def test_a_valid_configuration_passes_every_check(tmp_path: Path) -> None:
    with running_model() as model:
        status, found = doctor(configured(tmp_path, model.url))
    assert status == 0
    assert found["models.default"]["status"] == found["start"]["status"] == "ok"
    assert not (tmp_path / "seawall.db").exists()


def test_a_memory_that_no_caller_can_have(tmp_path: Path) -> None:
    folder = configured(tmp_path, "http://127.0.0.1:9/v1")
    assert "memory" not in doctor(folder)[1]
    found = doctor(folder, SEAWALL_AGENTS__HELPER__MEMORY="true")[1]["memory"]
    assert (found["status"], found["detail"][:7]) == ("warning", "helper:")


def test_a_model_that_is_not_listed(tmp_path: Path) -> None:
    with running_model() as model:
        status, found = doctor(configured(tmp_path, model.url, model="gpt-none"))
    assert (status, found["models.default"]["status"]) == (0, "warning")
    assert "simulated" in found["models.default"]["advice"]


def test_an_upstream_that_cannot_be_reached(tmp_path: Path) -> None:
    status, found = doctor(configured(tmp_path, "http://127.0.0.1:9/v1"))
    assert (status, found["models.default"]["status"]) == (1, "failed")
    assert "127.0.0.1:9" in found["models.default"]["detail"]


class _Refusing(BaseHTTPRequestHandler):
    """A provider that refuses every key, and whose clock is two minutes ahead."""

    def do_GET(self) -> None:
        self.send_response_only(401)
        self.send_header("date", formatdate(self.log_date() + 120, usegmt=True))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_date(self) -> float:
        import time  # noqa: PLC0415

        return time.time()

    def log_message(self, *_: object) -> None: ...


def test_a_key_that_is_refused_and_a_clock_that_is_wrong(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        folder = configured(tmp_path, f"http://127.0.0.1:{server.server_port}/v1")
        toml = folder / "seawall.toml"
        toml.write_text(toml.read_text().replace("[agents", 'api_key_env = "THE_KEY"\n[agents', 1))
        status, found = doctor(folder, THE_KEY="sk-secret")
        text = json.dumps(found)
    finally:
        server.shutdown()
        server.server_close()
    assert status == 1
    assert "the key is refused" in found["models.default"]["detail"]
    assert (found["clock"]["status"], "behind" in found["clock"]["detail"]) == ("failed", True)
    assert "sk-secret" not in text


class _NotFound(_Refusing):
    """A server without a list of models at this path."""

    def do_GET(self) -> None:
        self.send_error(404)


def test_a_base_url_without_its_path(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NotFound)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        status, found = doctor(configured(tmp_path, f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
    assert (status, found["models.default"]["status"]) == (0, "warning")
    assert "check base_url" in found["models.default"]["advice"]


@pytest.mark.parametrize(
    ("kind", "status"), [("readable by others", "warning"), ("no database", "failed")]
)
def test_the_database(tmp_path: Path, kind: str, status: str) -> None:
    path = tmp_path / "seawall.db"
    if kind == "no database":
        path.write_bytes(b"not a database" * 100)
        path.chmod(0o600)
    else:
        with closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE t (a)")
        path.chmod(0o644)
    with running_model() as model:
        _, found = doctor(configured(tmp_path, model.url))
    assert found["sessions (seawall.db)"]["status"] == status


def test_no_file_is_left_beside_the_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "seawall.db")) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE t (a)")
    (tmp_path / "seawall.db").chmod(0o600)
    _, found = doctor(configured(tmp_path, "http://127.0.0.1:9/v1"))
    assert found["sessions (seawall.db)"]["status"] == "ok"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["seawall.db", "seawall.toml"]


def test_a_tool_that_does_not_exist(tmp_path: Path) -> None:
    with running_model() as model:
        folder = configured(tmp_path, model.url, '[tools.shop]\nfactory = "shop:open"\n')
        status, found = doctor(folder)
    assert (status, found["start"]["status"]) == (1, "failed")
    assert "shop" in found["start"]["detail"]


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    done = seawall("doctor", folder=configured(tmp_path, "http://x/v1", "[sever]\nport = 1\n"))
    assert done.returncode == 2
    assert "sever" in done.stderr


def test_a_source_of_tools_that_cannot_be_reached(tmp_path: Path) -> None:
    tools = '[tools.crm]\nmcp = "http://127.0.0.1:9/mcp"\n'
    with running_model() as model:
        status, found = doctor(configured(tmp_path, model.url, tools))
    assert (status, found["tools.crm"]["status"], found["start"]["status"]) == (1, "failed", "ok")
    assert "127.0.0.1:9" in found["tools.crm"]["detail"]


def test_the_store_of_files(tmp_path: Path) -> None:
    with running_model() as model:
        status, found = doctor(configured(tmp_path, model.url, "[blobs]\n"))
        assert status == 0
        assert found["files (seawall-files)"]["detail"] == "is made at the first start"
        assert not (tmp_path / "seawall-files").exists()
        blobs = '[blobs]\nstore = "s3"\nbucket = "my-files"\nendpoint = "http://127.0.0.1:9"\n'
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1"}
        status, found = doctor(
            configured(tmp_path, model.url, blobs + "path_style = true\nseconds = 0.5\n"), **keys
        )
        assert (status, found["files (bucket my-files)"]["status"]) == (1, "failed")
