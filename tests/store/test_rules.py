"""Rules of the store's policy: what must be refused is refused, and changes nothing."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from examples.store.catalogue import Catalogue
from examples.store.tools import open_store

from seawall import Principal, ToolContext, Toolset
from seawall.errors import ConfigError
from seawall.tools.port import ToolOutcome
from tests.servers import ROOT

ADDRESS = {
    "address1": "1 Quay",
    "address2": "",
    "city": "Oslo",
    "state": "OS",
    "country": "Norway",
    "zip": "0150",
}


def _variant(item: str, price: float, available: bool = True) -> dict[str, Any]:
    return {
        "item_id": item,
        "options": {"size": item},
        "available": available,
        "price": price,
    }


def _order(number: str, status: str, paid: float, by: str, **items: float) -> dict[str, Any]:
    return {
        "order_id": number,
        "user_id": "ada_1",
        "address": ADDRESS,
        "items": [
            {
                "name": "Boot",
                "product_id": "P1",
                "item_id": item,
                "price": price,
                "options": {"size": item},
            }
            for item, price in items.items()
        ],
        "status": status,
        "fulfillments": [],
        "payment_history": [
            {"transaction_type": "payment", "amount": paid, "payment_method_id": by}
        ],
    }


DATA = {
    "products": {
        "P1": {
            "product_id": "P1",
            "name": "Boot",
            "variants": {
                "i1": _variant("i1", 50.0),
                "i2": _variant("i2", 60.0),
                "i3": _variant("i3", 500.0),
                "i4": _variant("i4", 50.0, available=False),
            },
        },
        "P2": {"product_id": "P2", "name": "Hat", "variants": {"h1": _variant("h1", 10.0)}},
    },
    "users": {
        user: {
            "user_id": user,
            "name": {"first_name": first, "last_name": "Lund"},
            "address": ADDRESS,
            "email": f"{first.lower()}@example.com",
            "payment_methods": {
                f"card_{user}": {
                    "source": "credit_card",
                    "id": f"card_{user}",
                    "brand": "visa",
                    "last_four": "1111",
                },
                f"gift_{user}": {"source": "gift_card", "id": f"gift_{user}", "balance": 20.0},
                f"paypal_{user}": {"source": "paypal", "id": f"paypal_{user}"},
            },
            "orders": orders,
        }
        for user, first, orders in (
            ("ada_1", "Ada", ["#W1", "#W2", "#W3", "#W4"]),
            ("eve_2", "Eve", []),
        )
    },
    "orders": {
        "#W1": _order("#W1", "pending", 110.0, "card_ada_1", i1=50.0, i2=60.0),
        "#W2": _order("#W2", "delivered", 50.0, "card_ada_1", i1=50.0),
        "#W3": _order("#W3", "cancelled", 50.0, "card_ada_1", i1=50.0),
        "#W4": _order("#W4", "pending (item modified)", 50.0, "card_ada_1", i1=50.0),
    },
}


class Shop:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"
        (folder / "data.json").write_text(json.dumps(DATA))
        self.toolset: Toolset = open_store(
            database=str(self.path), catalogue=str(folder / "data.json")
        )

    def call(
        self,
        name: str,
        subject: str = "ada_1",
        notes: dict[str, str] | None = None,
        effect: str = "",
        **given: Any,
    ) -> ToolOutcome:
        async def run() -> ToolOutcome:
            context = ToolContext(
                principal=Principal("store", subject),
                session="s",
                turn="t",
                agent="a",
                call="c",
                idempotency_key=effect or os.urandom(8).hex(),
                deadline=asyncio.get_running_loop().time() + 10,
                state={} if notes is None else notes,
            )
            tools = {each.name: each for each in self.toolset.tools}
            return await tools[name].call(json.dumps(given), context)

        return asyncio.run(run())

    def everything(self) -> object:
        catalogue = Catalogue(self.path)
        try:
            return msgspec.to_builtins(catalogue.export())
        finally:
            catalogue.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.toolset.close()


CANCEL = "cancel_pending_order"
MISTAKE = {"reason": "ordered by mistake"}
MODIFY = "modify_pending_order_items"
PAYMENT = "modify_pending_order_payment"
RETURN = "return_delivered_order_items"
EXCHANGE = "exchange_delivered_order_items"
SEND = "modify_pending_order_address"


def _change(order: str, old: list[str], new: list[str], by: str = "card_ada_1") -> dict[str, Any]:
    return {"order_id": order, "item_ids": old, "new_item_ids": new, "payment_method_id": by}


def _back(order: str, items: list[str], by: str) -> dict[str, Any]:
    return {"order_id": order, "item_ids": items, "payment_method_id": by}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # Cancelling: pending only, for one of two reasons.
    (CANCEL, {"order_id": "#W2", **MISTAKE}, "delivered"),
    (CANCEL, {"order_id": "#W3", **MISTAKE}, "cancelled"),
    (CANCEL, {"order_id": "#W4", **MISTAKE}, "item modified"),
    (CANCEL, {"order_id": "#W1", "reason": "too expensive"}, "reason"),
    (CANCEL, {"order_id": "#W9", **MISTAKE}, "not found"),
    (CANCEL, {"order_id": "W1", **MISTAKE}, "not found"),
    # Modifying: pending only, same product, other option, in stock, paid for; once.
    (MODIFY, _change("#W2", ["i1"], ["i2"]), "delivered"),
    (MODIFY, _change("#W4", ["i1"], ["i2"]), "item modified"),
    (MODIFY, _change("#W1", ["i1"], ["h1"]), "not of the product"),
    (MODIFY, _change("#W1", ["i1"], ["i1"]), "is the one"),
    (MODIFY, _change("#W1", ["i1"], ["i4"]), "not available"),
    (MODIFY, _change("#W1", ["i1", "i1"], ["i2", "i2"]), "does not have 2"),
    (MODIFY, _change("#W1", ["i1"], ["i2", "i3"]), "as many"),
    (MODIFY, _change("#W1", [], []), "at least one"),
    (MODIFY, _change("#W1", ["i1"], ["i2"], "card_eve_2"), "method not found"),
    (MODIFY, _change("#W1", ["i1"], ["i3"], "gift_ada_1"), "gift card"),
    # Payment: pending only, another single method that covers it.
    (PAYMENT, {"order_id": "#W2", "payment_method_id": "paypal_ada_1"}, "delivered"),
    (PAYMENT, {"order_id": "#W1", "payment_method_id": "card_ada_1"}, "different"),
    (PAYMENT, {"order_id": "#W1", "payment_method_id": "gift_ada_1"}, "gift card"),
    (PAYMENT, {"order_id": "#W1", "payment_method_id": "nothing"}, "method not found"),
    # Address: pending only.
    (SEND, {"order_id": "#W2", **ADDRESS}, "delivered"),
    (SEND, {"order_id": "#W1", **ADDRESS, "city": " "}, "needs a city"),
    # Returns: delivered only, to the original method or a gift card.
    (RETURN, _back("#W1", ["i1"], "card_ada_1"), "pending"),
    (RETURN, _back("#W2", ["i2"], "card_ada_1"), "does not have"),
    (RETURN, _back("#W2", [], "card_ada_1"), "at least one"),
    (RETURN, _back("#W2", ["i1"], "paypal_ada_1"), "original"),
    (RETURN, _back("#W2", ["i1"], "gift_eve_2"), "method not found"),
    # Exchanges: delivered only, like modifications.
    (EXCHANGE, _change("#W1", ["i1"], ["i2"]), "pending"),
    (EXCHANGE, _change("#W2", ["i1"], ["h1"]), "not of the product"),
    (EXCHANGE, _change("#W2", ["i1"], ["i4"]), "not available"),
    (EXCHANGE, _change("#W2", ["i1"], ["i3"], "gift_ada_1"), "gift card"),
    # Profiles and people.
    ("modify_user_address", {"user_id": "eve_2", **ADDRESS}, "not found"),
    ("get_user_details", {"user_id": "eve_2"}, "not found"),
    ("find_user_id_by_email", {"email": "nobody@example.com"}, "not found"),
    (
        "find_user_id_by_name_zip",
        {"first_name": "Ada", "last_name": "Lund", "zip": "9999"},
        "not found",
    ),
    ("transfer_to_human_agents", {"summary": " "}, "summary"),
    ("calculate", {"expression": "__import__('os')"}, ""),
    ("calculate", {"expression": "9**9**9"}, ""),
]


@pytest.mark.parametrize(("name", "given", "because"), REFUSED)
def test_what_the_policy_forbids(
    shop: Shop, name: str, given: dict[str, Any], because: str
) -> None:
    before = shop.everything()
    outcome = shop.call(name, **given)
    assert outcome.failed, outcome.content
    assert because in outcome.content
    assert shop.everything() == before


def test_one_conversation_is_about_one_customer(shop: Shop) -> None:
    state: dict[str, str] = {}
    before = shop.everything()
    assert not shop.call("find_user_id_by_email", "guest", state, email="EVE@example.com").failed
    assert shop.call("find_user_id_by_email", "guest", state, email="ada@example.com").failed
    assert shop.call(CANCEL, "guest", state, order_id="#W1", **MISTAKE).failed
    assert shop.call("get_order_details", "guest", state, order_id="#W1").failed
    assert shop.call(CANCEL, "guest", {}, order_id="#W1", **MISTAKE).failed
    assert shop.everything() == before


def test_what_the_policy_allows_moves_the_money(shop: Shop) -> None:
    assert not shop.call(MODIFY, **_change("#W1", ["i1"], ["i2"], "gift_ada_1")).failed
    once_more = shop.call(MODIFY, **_change("#W1", ["i2"], ["i1"], "gift_ada_1"))
    assert once_more.failed
    user = json.loads(shop.call("get_user_details", user_id="ada_1").content)
    assert user["payment_methods"]["gift_ada_1"]["balance"] == 10.0
    assert not shop.call(RETURN, **_back("#W2", ["i1"], "gift_ada_1")).failed
    assert shop.call(EXCHANGE, **_change("#W2", ["i1"], ["i2"])).failed


def test_one_of_a_concurrent_cancellation_and_change_happens(shop: Shop) -> None:
    outcomes: list[ToolOutcome] = []
    calls: list[tuple[str, dict[str, Any]]] = [
        (CANCEL, {"order_id": "#W1", **MISTAKE}),
        (MODIFY, _change("#W1", ["i1"], ["i2"])),
    ] * 4
    threads = [
        threading.Thread(target=lambda each=each: outcomes.append(shop.call(each[0], **each[1])))
        for each in calls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not outcome.failed for outcome in outcomes) == 1


def test_the_catalogue_is_what_its_generator_makes(tmp_path: Path) -> None:
    from examples.store.generate import generate  # noqa: PLC0415 - a program, imported for once

    kept = json.loads((ROOT / "examples/store/catalogue.json").read_text())
    assert msgspec.to_builtins(generate()) == kept
    catalogue = Catalogue(tmp_path / "store.db")
    catalogue.fill(ROOT / "examples/store/catalogue.json")
    assert len(catalogue.export().orders) == len(kept["orders"])
    catalogue.close()


def test_workers_that_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(10):
            path = tmp_path / f"{number}.db"
            for catalogue in threads.map(Catalogue, [path] * 8):
                catalogue.close()


def test_an_invalid_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"products": []}')
    for name, because in (("bad.json", "products"), ("absent.json", "cannot be read")):
        with pytest.raises(ConfigError, match=because):
            open_store(database=str(tmp_path / "x.db"), catalogue=str(tmp_path / name))


def test_a_call_that_is_repeated_answers_as_before_and_changes_nothing(shop: Shop) -> None:
    given: dict[str, Any] = {"order_id": "#W1", "reason": "no longer needed"}
    first = shop.call("cancel_pending_order", effect="one", **given)
    assert not first.failed
    after = shop.everything()
    again = shop.call("cancel_pending_order", effect="one", **given)
    assert again == first
    assert shop.everything() == after
    assert shop.call("cancel_pending_order", effect="two", **given).failed  # a wish of its own
    other = given | {"reason": "ordered by mistake"}
    assert shop.call("cancel_pending_order", effect="one", **other).failed
    assert shop.everything() == after
