"""Policy of the store: checks that raise ToolError with a text that the model can act on."""

from collections import Counter
from collections.abc import Sequence

from examples.store.catalogue import (
    Catalogue,
    Order,
    OrderItem,
    PaymentMethod,
    Product,
    User,
    Variant,
)

from seawall import ToolContext, ToolError

_CUSTOMER = "customer"


def locate(context: ToolContext, user: User) -> None:
    """Bind the conversation to a customer; a conversation is about one customer."""
    known = context.state.get(_CUSTOMER)
    if known is not None and known != user.user_id:
        raise ToolError("This conversation is about another customer; only one can be helped.")
    context.state[_CUSTOMER] = user.user_id


def customer(catalogue: Catalogue, context: ToolContext) -> User:
    """The customer of the conversation: the one that was located in it, or is signed in."""
    known = context.state.get(_CUSTOMER, context.principal.subject)
    user = catalogue.get(User, known)
    if user is None:
        raise ToolError("First find the customer by email, or by name and zip code.")
    return user


def own_order(catalogue: Catalogue, context: ToolContext, order_id: str) -> tuple[User, Order]:
    """An order of the customer; that of another customer does not exist for this one."""
    user = customer(catalogue, context)
    order = catalogue.get(Order, order_id)
    if order is None or order.user_id != user.user_id:
        raise ToolError("Order not found")
    return user, order


def must_be(order: Order, status: str) -> None:
    """Check the status of an order."""
    if order.status != status:
        raise ToolError(f"The order is '{order.status}'; it must be '{status}' for this.")


def payment_method(user: User, payment_method_id: str) -> PaymentMethod:
    """A payment method of the customer."""
    method = user.payment_methods.get(payment_method_id)
    if method is None:
        raise ToolError("Payment method not found")
    return method


def must_cover(method: PaymentMethod, amount: float) -> None:
    """Check that a gift card covers an amount."""
    if method.source == "gift_card" and (method.balance or 0.0) < amount:
        raise ToolError("Insufficient gift card balance")


def chosen_items(order: Order, item_ids: Sequence[str]) -> list[OrderItem]:
    """The items of an order with these ids; as many of one id as are asked for."""
    if not item_ids:
        raise ToolError("There must be at least one item.")
    available = Counter(item.item_id for item in order.items)
    for item_id, wanted in Counter(item_ids).items():
        if wanted > available[item_id]:
            raise ToolError(f"The order does not have {wanted} of the item {item_id}.")
    left = list(order.items)
    chosen = []
    for item_id in item_ids:
        item = next(each for each in left if each.item_id == item_id)
        left.remove(item)
        chosen.append(item)
    return chosen


def replacements(
    catalogue: Catalogue, chosen: Sequence[OrderItem], new_item_ids: Sequence[str]
) -> list[OrderItem]:
    """The replacement of each chosen item: same product, another option, in stock."""
    if len(chosen) != len(new_item_ids):
        raise ToolError("There must be as many new items as items.")
    new: list[OrderItem] = []
    for item, new_item_id in zip(chosen, new_item_ids, strict=True):
        product = catalogue.get(Product, item.product_id)
        variant = product.variants.get(new_item_id) if product else None
        if variant is None:
            raise ToolError(f"The item {new_item_id} is not of the product {item.name}.")
        if new_item_id == item.item_id:
            raise ToolError(f"The new item {new_item_id} is the one of the order.")
        if not variant.available:
            raise ToolError(f"The item {new_item_id} is not available.")
        new.append(
            OrderItem(
                name=item.name,
                product_id=item.product_id,
                item_id=new_item_id,
                price=variant.price,
                options=variant.options,
            )
        )
    return new


def paid_back(
    catalogue: Catalogue, order: Order, item_ids: Sequence[str], new_item_ids: Sequence[str]
) -> float:
    """The most that is paid back for items of an order, which become others or are returned."""
    old = [item for item in order.items if item.item_id in item_ids]
    variants: dict[str, Variant] = {}
    for item in old:
        if (product := catalogue.get(Product, item.product_id)) is not None:
            variants |= product.variants
    kept = sum(variants[each].price for each in new_item_ids if each in variants)
    return round(sum(item.price for item in old) - kept, 2)


def difference(old: Sequence[OrderItem], new: Sequence[OrderItem]) -> float:
    """The difference in price, in dollars rounded to cents; negative for a refund."""
    return round(sum(item.price for item in new) - sum(item.price for item in old), 2)


def move_money(method: PaymentMethod, amount: float) -> None:
    """Take an amount from a gift card, or put it back if negative; nothing for other methods."""
    if method.source == "gift_card":
        method.balance = round((method.balance or 0.0) - amount, 2)
