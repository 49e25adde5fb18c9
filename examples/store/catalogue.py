"""Data of the store: products, users and orders in SQLite, shared by all worker processes."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError

T = TypeVar("T", bound=Struct)

_BUSY_SECONDS = 5.0
_KEPT_SECONDS = 7 * 86_400.0


class Variant(Struct, kw_only=True):
    """A variant of a product: one combination of its options."""

    item_id: str
    options: dict[str, str]
    available: bool
    price: float


class Product(Struct, kw_only=True):
    """A product with its variants by item id."""

    product_id: str
    name: str
    variants: dict[str, Variant]


class Address(Struct, kw_only=True):
    """A postal address."""

    address1: str
    address2: str
    city: str
    state: str
    country: str
    zip: str


class PaymentMethod(Struct, kw_only=True, omit_defaults=True):
    """source: "credit_card", "paypal" or "gift_card"; only gift cards have a balance."""

    source: str
    id: str
    brand: str | None = None
    last_four: str | None = None
    balance: float | None = None


class PersonName(Struct):
    """A customer's name."""

    first_name: str
    last_name: str


class User(Struct, kw_only=True):
    """A customer."""

    user_id: str
    name: PersonName
    address: Address
    email: str
    payment_methods: dict[str, PaymentMethod]
    orders: list[str]


class OrderItem(Struct, kw_only=True):
    """An item of an order, as it was bought."""

    name: str
    product_id: str
    item_id: str
    price: float
    options: dict[str, str]


class Payment(Struct, kw_only=True):
    """A payment or refund; transaction_type: "payment" or "refund"."""

    transaction_type: str
    amount: float
    payment_method_id: str


class Order(Struct, kw_only=True, omit_defaults=True):
    """An order; fields that are None do not apply (yet)."""

    order_id: str
    user_id: str
    address: Address
    items: list[OrderItem]
    status: str
    fulfillments: list[dict[str, list[str]]]
    payment_history: list[Payment]
    cancel_reason: str | None = None
    exchange_items: list[str] | None = None
    exchange_new_items: list[str] | None = None
    exchange_payment_method_id: str | None = None
    exchange_price_difference: float | None = None
    return_items: list[str] | None = None
    return_payment_method_id: str | None = None


class Data(Struct):
    """A whole catalogue, as in its JSON file."""

    products: dict[str, Product]
    users: dict[str, User]
    orders: dict[str, Order]


class Catalogue:
    """Documents in SQLite. A change is one transaction: checked and written, or nothing.

    One connection, one thread at a time; other processes are kept out by the transaction.
    """

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        with self.change():  # in a transaction, because several workers start at once
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS documents "
                "(kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS effects (key TEXT, call TEXT, answer TEXT NOT NULL, "
                "at REAL NOT NULL, PRIMARY KEY (key, call)) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE INDEX IF NOT EXISTS users_by_email ON documents (body->>'email') "
                "WHERE kind = 'User'"
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def fill(self, path: Path) -> None:
        """Load a JSON file, unless something is loaded already.

        Raises:
            ConfigError: it cannot be read, or is not a catalogue.
        """
        with self.change():
            if self._connection.execute("SELECT 1 FROM documents LIMIT 1").fetchone():
                return
            try:
                data = msgspec.json.decode(path.read_bytes(), type=Data)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: is not a catalogue: {error}") from error
            for group in (data.products, data.users, data.orders):
                for key, document in group.items():
                    self._put(key, document)

    def export(self) -> Data:
        """All documents."""
        data = Data({}, {}, {})
        with self._lock:
            rows = self._connection.execute("SELECT kind, id, body FROM documents").fetchall()
        for kind, key, body in rows:
            if kind == "Product":
                data.products[key] = msgspec.json.decode(body, type=Product)
            elif kind == "User":
                data.users[key] = msgspec.json.decode(body, type=User)
            else:
                data.orders[key] = msgspec.json.decode(body, type=Order)
        return data

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: its reads stay valid until its writes are committed.

        One inside another is a part of it.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def view(self) -> Iterator[None]:
        """A read-only view."""
        with self._lock:
            yield

    def get(self, kind: type[T], key: str) -> T | None:
        """A document; only inside `change` or `view`."""
        row = self._connection.execute(
            "SELECT body FROM documents WHERE kind = ? AND id = ?", (kind.__name__, key)
        ).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    def find(self, kind: type[T], matches: Callable[[T], bool]) -> T | None:
        """The first document that matches; only inside `change` or `view`."""
        rows = self._connection.execute(
            "SELECT body FROM documents WHERE kind = ? ORDER BY id", (kind.__name__,)
        )
        for (body,) in rows:
            document = msgspec.json.decode(body, type=kind)
            if matches(document):
                return document
        return None

    def all(self, kind: type[T]) -> list[T]:
        """All documents of a kind; only inside `change` or `view`."""
        rows = self._connection.execute(
            "SELECT body FROM documents WHERE kind = ? ORDER BY id", (kind.__name__,)
        )
        return [msgspec.json.decode(body, type=kind) for (body,) in rows]

    def effect(self, key: str, call: str) -> str | None:
        """The recorded answer of a call; only inside `change`."""
        row = self._connection.execute(
            "SELECT answer FROM effects WHERE key = ? AND call = ?", (key, call)
        ).fetchone()
        return str(row[0]) if row else None

    def record(self, key: str, call: str, answer: str) -> None:
        """Record the answer of a call for a week; only inside `change`."""
        now = time.time()
        self._connection.execute("DELETE FROM effects WHERE at < ?", (now - _KEPT_SECONDS,))
        self._connection.execute(
            "INSERT INTO effects VALUES (?, ?, ?, ?)", (key, call, answer, now)
        )

    def put(self, document: Product | User | Order) -> None:
        """Write a document; only inside `change`."""
        if isinstance(document, Product):
            key = document.product_id
        else:
            key = document.user_id if isinstance(document, User) else document.order_id
        self._put(key, document)

    def _put(self, key: str, document: Struct) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)",
            (type(document).__name__, key, msgspec.json.encode(document).decode()),
        )
