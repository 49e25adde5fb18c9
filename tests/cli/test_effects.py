"""`seawall effects`: list, show, resolve, export and verify."""

import asyncio
import getpass
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from seawall.cli.main import main
from seawall.pipeline.decisions import Verdict, decide_call
from seawall.settings import SessionSettings
from tests.pipeline.shop import ANN, RefundService, Script, ask, refund, shop, waits

OF_SHOP = ["--tenant", "shop"]


@pytest.fixture
def effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with two effects that are done, one that waits, and one of unknown outcome."""
    (tmp_path / "seawall.toml").write_text('[sessions]\npath = "kept.db"\n')
    monkeypatch.chdir(tmp_path)

    async def fill() -> str:
        service, place = RefundService(), SessionSettings(path=str(tmp_path / "kept.db"))
        script = Script((refund("o1", 1),), (refund("o2", 2, "c2"),))
        async with shop(place, script, service) as app:
            assert (await ask(app)).problem is None
        async with shop(place, Script((refund("o3", 50),)), service, approve="amount > 10") as app:
            assert (await ask(app)).problem is None
        service.faults = [ConnectionError("reset")]
        async with shop(place, Script((refund("o4", 4),)), service) as app:
            assert (await ask(app)).problem is not None
            (unknown,) = (each for each in await waits(app) if each.kind == "unknown")
            return unknown.id

    return asyncio.run(fill())


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["effects", *words]) == 0
    return capsys.readouterr().out


def test_an_effect_is_listed_shown_and_resolved(
    effect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = printed(capsys, "list", *OF_SHOP)
    assert effect in listed
    assert 'ann: refund({"amount":4' in listed
    assert listed.count("refund(") == 1
    found = json.loads(printed(capsys, "list", *OF_SHOP, "--json"))
    assert [each["id"] for each in found["effects"]] == [effect]
    assert '"order":"o3"' in printed(capsys, "list", *OF_SHOP, "--approvals")
    assert printed(capsys, "list", "--tenant", "other") == "No effects are of unknown outcome.\n"
    assert "outcome unknown since" in printed(capsys, "show", effect, *OF_SHOP)
    assert main(["effects", "show", effect, "--tenant", "other"]) == 1
    assert main(["effects", "resolve", "no.1", *OF_SHOP, "--done"]) == 1
    capsys.readouterr()
    resolved = printed(
        capsys, "resolve", effect, *OF_SHOP, "--done", "--result", "done by hand", "--note", "seen"
    )
    assert resolved == f"recorded done of {effect} by {getpass.getuser()}\n"
    assert printed(capsys, "list", *OF_SHOP) == "No effects are of unknown outcome.\n"
    shown = printed(capsys, "show", effect, *OF_SHOP)
    assert f"decision done by {getpass.getuser()}: seen" in shown
    assert "effect done: done by hand" in shown
    assert main(["effects", "resolve", effect, *OF_SHOP, "--not-done"]) == 1


def test_resolving_names_who_has_found_it_out(
    effect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["resolve", effect, *OF_SHOP, "--not-done", "--by", "meg", "--json"]
    resolved = json.loads(printed(capsys, *words))
    assert resolved["decision"] | {"at": 0} == {"verdict": "not-done", "by": "meg", "at": 0}


def test_options_of_resolve_that_contradict_each_other(effect: str) -> None:
    for wrong in (
        [], ["--done", "--not-done"], ["--not-done", "--result", "x"],
    ):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            main(["effects", "resolve", effect, *OF_SHOP, *wrong])


def test_records_are_exported(
    effect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "export").splitlines()
    records = [json.loads(line) for line in lines]
    assert [(each["tool"], each["status"]) for each in records].count(("refund", "done")) == 2
    assert effect in [each["effect"] for each in records if each["status"] == "unknown"]
    assert printed(capsys, "export", *OF_SHOP).splitlines() == lines
    assert printed(capsys, "export", "--tenant", "other") == ""
    assert printed(capsys, "export", "--output", "records.jsonl") == ""
    assert (tmp_path / "records.jsonl").read_text().splitlines() == lines


@pytest.mark.usefixtures("effect")
def test_a_record_that_was_changed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "verify") == "3 records of 2 sessions: nothing was changed\n"
    with closing(sqlite3.connect(tmp_path / "kept.db")) as database, database:
        changed = database.execute(
            "UPDATE audit SET record = replace(record, 'refunded o1', 'refunded o9')"
        ).rowcount
        assert changed
    assert main(["effects", "verify"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("session ses_")
    assert out.endswith(": record 1 was changed\n")
    assert main(["effects", "verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fault"]


def test_nothing_controls_a_terminal(effect: str, capsys: pytest.CaptureFixture[str]) -> None:
    note = "\x1b]0;x\x07 \x9b31m \u202e \U000e0001"
    printed(capsys, "resolve", effect, *OF_SHOP, "--done", "--result", note, "--note", note)
    for words in (("show", effect, *OF_SHOP), ("show", effect, *OF_SHOP, "--json"), ("export",)):
        shown = printed(capsys, *words)
        assert all(line.isprintable() for line in shown.splitlines()), words
    exported = [json.loads(line) for line in printed(capsys, "export").splitlines()]
    assert note in [each.get("decision", {}).get("note") for each in exported]


def test_arguments_of_a_decision_are_shown_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seawall.toml").write_text('[sessions]\npath = "kept.db"\n')
    monkeypatch.chdir(tmp_path)

    async def fill() -> str:
        place = SessionSettings(path=str(tmp_path / "kept.db"))
        policy: dict[str, Any] = {"approve": "always", "redact": ("reason",)}
        async with shop(place, Script((refund("o1"),)), RefundService(), **policy) as app:
            asked = await ask(app)
            new = {"order": "o1", "amount": 5, "reason": "secret"}
            edit = Verdict(decision="edit", arguments=new)
            wait = await decide_call(app.engine.pipeline.ports, ANN, asked.request.id, "c1", edit)
            return wait.id

    wait = asyncio.run(fill())
    for more in ((), ("--json",)):
        assert "secret" not in printed(capsys, "show", wait, *OF_SHOP, *more)
