"""Generates the small catalogue of the example; deterministic for a seed.

`python -m examples.store.generate > examples/store/catalogue.json` renews the one in the folder.
"""

import itertools
import random
import sys

import msgspec
from examples.store.catalogue import (
    Address,
    Data,
    Order,
    OrderItem,
    Payment,
    PaymentMethod,
    PersonName,
    Product,
    User,
    Variant,
)

_PRODUCTS: dict[str, tuple[float, dict[str, tuple[str, ...]]]] = {
    "Rain Jacket": (89.0, {"colour": ("navy", "yellow", "olive"), "size": ("S", "M", "L")}),
    "Wool Socks": (14.0, {"colour": ("grey", "rust"), "size": ("36-39", "40-43", "44-46")}),
    "Trail Shoes": (119.0, {"size": ("38", "40", "42", "44"), "width": ("normal", "wide")}),
    "Camping Stove": (64.0, {"fuel": ("gas", "spirit"), "burners": ("1", "2")}),
    "Sleeping Mat": (72.0, {"length": ("short", "long"), "thickness": ("3 cm", "6 cm")}),
    "Head Torch": (39.0, {"light": ("200 lumen", "400 lumen"), "battery": ("AAA", "USB-C")}),
    "Water Filter": (45.0, {"capacity": ("1 l", "2 l"), "colour": ("blue", "clear")}),
    "Day Pack": (79.0, {"volume": ("18 l", "24 l", "30 l"), "colour": ("black", "teal")}),
    "Enamel Mug": (12.0, {"colour": ("white", "green", "red"), "size": ("small", "large")}),
    "Folding Chair": (54.0, {"colour": ("sand", "black"), "armrest": ("with", "without")}),
    "Travel Towel": (22.0, {"size": ("hand", "bath"), "colour": ("mint", "plum", "stone")}),
    "Field Watch": (149.0, {"strap": ("leather", "nylon"), "dial": ("black", "ivory")}),
}
_FIRST = ("Ada", "Bruno", "Clara", "Dario", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas")
_LAST = ("Abel", "Berg", "Costa", "Duval", "Eder", "Falk", "Gomez", "Hale")
_TOWNS = (("Portland", "OR"), ("Denver", "CO"), ("Boise", "ID"), ("Tucson", "AZ"), ("Duluth", "MN"))
_STREETS = ("Harbour Lane", "Mill Road", "Orchard Way", "Station Street", "Quarry Hill")
_STATUSES = ("pending", "pending", "delivered", "delivered", "processed", "cancelled")


def generate(seed: int = 7, *, users: int = 40, orders: int = 80) -> Data:
    """A catalogue: twelve products, customers with payment methods, orders in every state."""
    chance = random.Random(seed)  # noqa: S311 - invented data, not a secret
    data = Data({}, {}, {})
    for number, (name, (price, options)) in enumerate(_PRODUCTS.items()):
        product = _product(chance, number, name, price, options)
        data.products[product.product_id] = product
    for number in range(users):
        user = _user(chance, number)
        data.users[user.user_id] = user
    owners = list(data.users.values())
    for number in range(orders):
        order = _order(chance, number, owners[number % len(owners)], list(data.products.values()))
        data.orders[order.order_id] = order
    return data


def _product(
    chance: random.Random, number: int, name: str, price: float, options: dict[str, tuple[str, ...]]
) -> Product:
    variants: dict[str, Variant] = {}
    for index, values in enumerate(itertools.product(*options.values())):
        item_id = str(7_000_000 + number * 1_000 + index * 7)
        variants[item_id] = Variant(
            item_id=item_id,
            options=dict(zip(options, values, strict=True)),
            available=chance.random() < 0.8,
            price=round(price * chance.uniform(0.9, 1.2), 2),
        )
    return Product(product_id=str(4_100 + number), name=name, variants=variants)


def _address(chance: random.Random) -> Address:
    city, state = chance.choice(_TOWNS)
    return Address(
        address1=f"{chance.randint(1, 240)} {chance.choice(_STREETS)}",
        address2=chance.choice(("", "Suite 12", "Flat 3")),
        city=city,
        state=state,
        country="USA",
        zip=f"{chance.randint(10_000, 99_999)}",
    )


def _user(chance: random.Random, number: int) -> User:
    first, last = _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)]
    methods = [
        PaymentMethod(
            source="credit_card",
            id=f"credit_card_{5_000 + number}",
            brand=chance.choice(("visa", "mastercard")),
            last_four=f"{chance.randint(0, 9_999):04}",
        )
    ]
    if number % 2 == 0:
        balance = float(chance.choice((5, 25, 60, 250)))
        methods.append(
            PaymentMethod(source="gift_card", id=f"gift_card_{6_000 + number}", balance=balance)
        )
    if number % 3 == 0:
        methods.append(PaymentMethod(source="paypal", id=f"paypal_{7_000 + number}"))
    return User(
        user_id=f"{first}_{last}_{100 + number}".lower(),
        name=PersonName(first, last),
        address=_address(chance),
        email=f"{first}.{last}{100 + number}@example.com".lower(),
        payment_methods={method.id: method for method in methods},
        orders=[],
    )


def _order(chance: random.Random, number: int, user: User, products: list[Product]) -> Order:
    status = _STATUSES[number % len(_STATUSES)]
    items = []
    for product in chance.sample(products, chance.randint(1, 3)):
        variant = chance.choice(list(product.variants.values()))
        items.append(
            OrderItem(
                name=product.name,
                product_id=product.product_id,
                item_id=variant.item_id,
                price=variant.price,
                options=variant.options,
            )
        )
    total = round(sum(item.price for item in items), 2)
    method = chance.choice([each for each in user.payment_methods if "gift" not in each])
    paid = [Payment(transaction_type="payment", amount=total, payment_method_id=method)]
    if status == "cancelled":
        paid.append(Payment(transaction_type="refund", amount=total, payment_method_id=method))
    sent = {"tracking_id": [str(880_000 + number)], "item_ids": [each.item_id for each in items]}
    order = Order(
        order_id=f"#W{1_000_000 + number * 137}",
        user_id=user.user_id,
        address=user.address,
        items=items,
        status=status,
        fulfillments=[sent] if status in ("delivered", "processed") else [],
        payment_history=paid,
        cancel_reason="no longer needed" if status == "cancelled" else None,
    )
    user.orders.append(order.order_id)
    return order


def main() -> None:
    """Write the catalogue to standard output."""
    encoded = msgspec.json.format(msgspec.json.encode(generate()), indent=1)
    sys.stdout.write(encoded.decode() + "\n")


if __name__ == "__main__":
    main()
