"""The retail tasks of tau2-bench: what a right assistant does, and what must come of it."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from tests.parts import DATA, data_file

FOLDER = DATA / "retail"
_KINDS = {"Product": "products", "User": "users", "Order": "orders"}


class Task(msgspec.Struct):
    """A task with its oracle: (tool, arguments, whether it succeeds), and the records after."""

    id: str
    text: str
    actions: list[tuple[str, dict[str, Any], bool]]
    changed: dict[str, dict[str, Any]]
    customer: str | None


def load_tasks() -> list[Task]:
    """All tasks; skips where the data is not there."""
    listed = msgspec.json.decode(data_file("retail/tasks_train.json").read_bytes())
    expected = msgspec.json.decode((FOLDER / "expected_train.json").read_bytes())
    orders = msgspec.json.decode((FOLDER / "db.json").read_bytes())["orders"]
    tasks = []
    for each in listed:
        oracle = expected[each["id"]]
        actions = [
            (action["name"], action["arguments"], outcome["ok"])
            for action, outcome in zip(
                each["evaluation_criteria"]["actions"], oracle["actions"], strict=True
            )
        ]
        located = any(name.startswith("find_user") and ok for name, _, ok in actions)
        customer = None if located else _customer(actions, orders)
        reason = each["user_scenario"]["instructions"]["reason_for_call"]
        tasks.append(
            Task(each["id"], f"({each['id']}) {reason}", actions, oracle["changed"], customer)
        )
    return tasks


def _customer(actions: list[tuple[str, dict[str, Any], bool]], orders: dict[str, Any]) -> str:
    """The customer of a task whose actions never look one up."""
    for _, arguments, _ in actions:
        if "user_id" in arguments:
            return str(arguments["user_id"])
        if arguments.get("order_id") in orders:
            return str(orders[arguments["order_id"]]["user_id"])
    return "unknown"


def documents(path: Path) -> dict[tuple[str, str], str]:
    """The records of a store's database as JSON, by kind and id."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT kind, id, body FROM documents").fetchall()
    return {(_KINDS[kind], key): body for kind, key, body in rows}


def check_changes(
    task: Task, before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]
) -> None:
    """After the task its records are as the reference has them, and no other has changed."""
    wanted = {
        (kind, key): record
        for kind, records in task.changed.items()
        for key, record in records.items()
    }
    assert after.keys() == before.keys() | wanted.keys(), task.id
    for key, record in after.items():
        if key in wanted or record != before[key]:
            expected = wanted[key] if key in wanted else msgspec.json.decode(before[key])
            found = without_nulls(msgspec.json.decode(record))
            assert same(found, without_nulls(expected)), (task.id, *key)


def without_nulls(value: object) -> object:
    """Absent and null are the same."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def same(left: object, right: object) -> bool:
    """Equal, money to a hundredth of a cent: the reference does not round every sum."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float | int) and isinstance(right, float | int):
        return math.isclose(left, right, abs_tol=1e-4)
    return left == right
