"""Tools of the store. Each enforces the policy itself, so no prompt can circumvent it."""

from pathlib import Path
from typing import Literal

from examples.store.arithmetic import evaluate
from examples.store.catalogue import Address, Catalogue, Order, Payment, Product, User, Variant
from examples.store.effects import once
from examples.store.rules import (
    chosen_items,
    customer,
    difference,
    locate,
    move_money,
    must_be,
    must_cover,
    own_order,
    paid_back,
    payment_method,
    replacements,
)

from seawall import Approval, ToolContext, ToolError, Toolset, tool

_CATALOGUE = ("get_product_details", "get_item_details", "list_all_product_types")
_CATALOGUE_FILE = Path(__file__).with_name("catalogue.json")
_CATALOGUE_SECONDS = 30.0
_LOOKUPS = (
    "find_user_id_by_email",
    "find_user_id_by_name_zip",
    "get_user_details",
    "get_order_details",
    "calculate",
    "transfer_to_human_agents",
)


def open_store(
    *,
    database: Path | str,
    catalogue: Path | str = _CATALOGUE_FILE,
    staff_above: float = 500.0,
    as_reference: bool = False,
) -> Toolset:
    """The tools of the store; a new database is filled from the catalogue.

    Args:
        database: The SQLite file.
        catalogue: The JSON file.
        staff_above: To pay back more than so many dollars needs approval by the role `staff`.
        as_reference: Repeat an error of tau2-bench's retail tools, which write the price and
            options of the last new item to every item that is modified with it. Only for comparing
            records with theirs.
    """
    opened = Catalogue(database)
    opened.fill(Path(catalogue))
    store = Store(opened, staff_above=staff_above, as_reference=as_reference)
    approvals = {
        "cancel_pending_order": Approval(store.can_cancel),
        "modify_pending_order_address": None,
        "modify_pending_order_items": Approval(store.pays_back_much, role="staff"),
        "modify_pending_order_payment": None,
        "modify_user_address": None,
        "return_delivered_order_items": Approval(store.returns_much, role="staff"),
        "exchange_delivered_order_items": Approval(store.pays_back_much, role="staff"),
    }
    return Toolset(
        tuple(tool(getattr(store, name)) for name in _LOOKUPS)
        + tuple(
            tool(getattr(store, name), cache_seconds=_CATALOGUE_SECONDS, shared=True)
            for name in _CATALOGUE
        )
        + tuple(
            tool(getattr(store, name), mutating=True, retry="key", approve=approval)
            for name, approval in approvals.items()
        ),
        opened.close,
    )


class Store:
    """The tools, one a method."""

    def __init__(self, catalogue: Catalogue, *, staff_above: float, as_reference: bool) -> None:
        self.catalogue = catalogue
        self._staff_above = staff_above
        self._as_reference = as_reference

    def find_user_id_by_email(self, email: str, context: ToolContext) -> str:
        """Find the customer by email address. Do this, or find by name, before anything else.

        Args:
            email: The customer's email address.
        """
        with self.catalogue.view():
            wanted = email.strip().lower()
            user = self.catalogue.find(User, lambda each: each.email.lower() == wanted)
        return _located(user, context)

    def find_user_id_by_name_zip(
        self, first_name: str, last_name: str, zip: str, context: ToolContext
    ) -> str:
        """Find the customer by name and zip code, where the email address is not known.

        Args:
            first_name: The customer's first name.
            last_name: The customer's last name.
            zip: The zip code of the customer's address.
        """
        wanted = (first_name.strip().lower(), last_name.strip().lower(), zip.strip())
        with self.catalogue.view():
            user = self.catalogue.find(
                User,
                lambda each: (
                    (each.name.first_name.lower(), each.name.last_name.lower(), each.address.zip)
                    == wanted
                ),
            )
        return _located(user, context)

    def get_user_details(self, user_id: str, context: ToolContext) -> User:
        """The customer's profile: address, payment methods, orders.

        Args:
            user_id: The customer's id, such as sara_doe_496.
        """
        with self.catalogue.view():
            user = customer(self.catalogue, context)
        if user.user_id != user_id:
            raise ToolError("User not found")
        return user

    def get_order_details(self, order_id: str, context: ToolContext) -> Order:
        """Status and details of one of the customer's orders.

        Args:
            order_id: The order's id, such as #W0000000, with the # in front.
        """
        with self.catalogue.view():
            return own_order(self.catalogue, context, order_id)[1]

    def get_product_details(self, product_id: str) -> Product:
        """A product with its variants: options, prices, availability.

        Args:
            product_id: The product's id, which is not that of an item.
        """
        with self.catalogue.view():
            product = self.catalogue.get(Product, product_id)
        if product is None:
            raise ToolError("Product not found")
        return product

    def get_item_details(self, item_id: str) -> Variant:
        """One variant of a product.

        Args:
            item_id: The item's id, which is not that of a product.
        """
        with self.catalogue.view():
            product = self.catalogue.find(Product, lambda each: item_id in each.variants)
        if product is None:
            raise ToolError("Item not found")
        return product.variants[item_id]

    def list_all_product_types(self) -> dict[str, str]:
        """The names of all products with their ids."""
        with self.catalogue.view():
            products = self.catalogue.all(Product)
        return {product.name: product.product_id for product in products}

    def calculate(self, expression: str) -> str:
        """Calculate a sum of prices.

        Args:
            expression: Numbers with + - * / and parentheses, such as "12.5 * 2".
        """
        return f"{evaluate(expression):.2f}"

    def transfer_to_human_agents(self, summary: str) -> str:
        """Hand the customer over to a person; only for what the other tools cannot do.

        Args:
            summary: What the person has to know.
        """
        if not summary.strip():
            raise ToolError("The person needs a summary.")
        return "Transfer successful"

    @once
    def cancel_pending_order(
        self,
        order_id: str,
        reason: Literal["no longer needed", "ordered by mistake"],
        context: ToolContext,
    ) -> Order:
        """Cancel an order that is pending; the customer is asked to approve it.

        Args:
            order_id: The order's id, such as #W0000000.
            reason: One of the two reasons that are accepted.
        """
        with self.catalogue.change():
            user, order = own_order(self.catalogue, context, order_id)
            must_be(order, "pending")
            for paid in list(order.payment_history):
                order.payment_history.append(_moved("refund", paid.amount, paid.payment_method_id))
                move_money(payment_method(user, paid.payment_method_id), -paid.amount)
            order.status = "cancelled"
            order.cancel_reason = reason
            self.catalogue.put(user)
            self.catalogue.put(order)
        return order

    def can_cancel(
        self,
        order_id: str,
        reason: str,  # noqa: ARG002 - called like the tool
        context: ToolContext,
    ) -> bool:
        """Whether the customer is asked: not about an order that is refused in any case."""
        order = self._own_order(order_id, context)
        return order is None or order.status == "pending"

    def returns_much(
        self, order_id: str, item_ids: list[str], payment_method_id: str, context: ToolContext
    ) -> bool:
        """Whether a return pays back more than the assistant decides about."""
        return self.pays_back_much(order_id, item_ids, [], payment_method_id, context)

    def pays_back_much(
        self,
        order_id: str,
        item_ids: list[str],
        new_item_ids: list[str],
        payment_method_id: str,  # noqa: ARG002 - called like the tool
        context: ToolContext,
    ) -> bool:
        """Whether a change of items pays back more than the assistant decides about."""
        order = self._own_order(order_id, context)
        if order is None:
            return True
        with self.catalogue.view():
            amount = paid_back(self.catalogue, order, item_ids, new_item_ids)
        return amount > self._staff_above

    def _own_order(self, order_id: str, context: ToolContext) -> Order | None:
        try:
            with self.catalogue.view():
                return own_order(self.catalogue, context, order_id)[1]
        except ToolError:
            return None

    @once
    def modify_pending_order_address(
        self,
        order_id: str,
        address1: str,
        address2: str,
        city: str,
        state: str,
        country: str,
        zip: str,
        context: ToolContext,
    ) -> Order:
        """Send a pending order to another address, after the customer has confirmed it.

        Args:
            order_id: The order's id, such as #W0000000.
            address1: Street and number.
            address2: The rest of it, such as a suite; may be empty.
            city: City.
            state: State, such as NY.
            country: Country, such as USA.
            zip: Zip code.
        """
        with self.catalogue.change():
            _, order = own_order(self.catalogue, context, order_id)
            must_be(order, "pending")
            order.address = _address(address1, address2, city, state, country, zip)
            self.catalogue.put(order)
        return order

    @once
    def modify_pending_order_items(
        self,
        order_id: str,
        item_ids: list[str],
        new_item_ids: list[str],
        payment_method_id: str,
        context: ToolContext,
    ) -> Order:
        """Change items of a pending order to other options of the same products.

        Only once for an order, so collect all items first; after it the order can neither be
        modified nor cancelled.

        Args:
            order_id: The order's id, such as #W0000000.
            item_ids: Items of the order to change.
            new_item_ids: What they become, in the same order.
            payment_method_id: What pays, or gets back, the difference in price.
        """
        with self.catalogue.change():
            user, order = own_order(self.catalogue, context, order_id)
            must_be(order, "pending")
            old = chosen_items(order, item_ids)
            new = replacements(self.catalogue, old, new_item_ids)
            amount = difference(old, new)
            method = payment_method(user, payment_method_id)
            must_cover(method, amount)
            kind = "payment" if amount > 0 else "refund"
            order.payment_history.append(_moved(kind, abs(amount), payment_method_id))
            move_money(method, amount)
            if self._as_reference:
                for item in new:
                    item.price, item.options = new[-1].price, new[-1].options
            for before, after in zip(old, new, strict=True):
                index = next(at for at, item in enumerate(order.items) if item is before)
                order.items[index] = after
            order.status = "pending (item modified)"
            self.catalogue.put(user)
            self.catalogue.put(order)
        return order

    @once
    def modify_pending_order_payment(
        self, order_id: str, payment_method_id: str, context: ToolContext
    ) -> Order:
        """Pay for a pending order by another method, after the customer has confirmed it.

        Args:
            order_id: The order's id, such as #W0000000.
            payment_method_id: The other method.
        """
        with self.catalogue.change():
            user, order = own_order(self.catalogue, context, order_id)
            must_be(order, "pending")
            if len(order.payment_history) != 1:
                raise ToolError("There should be exactly one payment for a pending order")
            paid = order.payment_history[0]
            if paid.payment_method_id == payment_method_id:
                raise ToolError("The new payment method should be different from the current one")
            method = payment_method(user, payment_method_id)
            must_cover(method, paid.amount)
            order.payment_history.append(_moved("payment", paid.amount, payment_method_id))
            order.payment_history.append(_moved("refund", paid.amount, paid.payment_method_id))
            move_money(method, paid.amount)
            move_money(payment_method(user, paid.payment_method_id), -paid.amount)
            self.catalogue.put(user)
            self.catalogue.put(order)
        return order

    @once
    def modify_user_address(
        self,
        user_id: str,
        address1: str,
        address2: str,
        city: str,
        state: str,
        country: str,
        zip: str,
        context: ToolContext,
    ) -> User:
        """Change the customer's default address, after the customer has confirmed it.

        Args:
            user_id: The customer's id.
            address1: Street and number.
            address2: The rest of it, such as a suite; may be empty.
            city: City.
            state: State, such as NY.
            country: Country, such as USA.
            zip: Zip code.
        """
        with self.catalogue.change():
            user = customer(self.catalogue, context)
            if user.user_id != user_id:
                raise ToolError("User not found")
            user.address = _address(address1, address2, city, state, country, zip)
            self.catalogue.put(user)
        return user

    @once
    def return_delivered_order_items(
        self, order_id: str, item_ids: list[str], payment_method_id: str, context: ToolContext
    ) -> Order:
        """Take items of a delivered order back, after the customer has confirmed it.

        Args:
            order_id: The order's id, such as #W0000000.
            item_ids: The items to return.
            payment_method_id: Gets the refund: the original method, or a gift card.
        """
        with self.catalogue.change():
            user, order = own_order(self.catalogue, context, order_id)
            must_be(order, "delivered")
            method = payment_method(user, payment_method_id)
            original = order.payment_history[0].payment_method_id
            if method.source != "gift_card" and method.id != original:
                raise ToolError("Payment method should be the original payment method")
            chosen_items(order, item_ids)
            order.status = "return requested"
            order.return_items = sorted(item_ids)
            order.return_payment_method_id = payment_method_id
            self.catalogue.put(order)
        return order

    @once
    def exchange_delivered_order_items(
        self,
        order_id: str,
        item_ids: list[str],
        new_item_ids: list[str],
        payment_method_id: str,
        context: ToolContext,
    ) -> Order:
        """Exchange items of a delivered order for other options of the same products.

        Only once for an order, so collect all items first.

        Args:
            order_id: The order's id, such as #W0000000.
            item_ids: Items of the order to exchange.
            new_item_ids: What they are exchanged for, in the same order.
            payment_method_id: What pays, or gets back, the difference in price.
        """
        with self.catalogue.change():
            user, order = own_order(self.catalogue, context, order_id)
            must_be(order, "delivered")
            old = chosen_items(order, item_ids)
            new = replacements(self.catalogue, old, new_item_ids)
            amount = difference(old, new)
            must_cover(payment_method(user, payment_method_id), amount)
            order.status = "exchange requested"
            order.exchange_items = sorted(item_ids)
            order.exchange_new_items = sorted(new_item_ids)
            order.exchange_payment_method_id = payment_method_id
            order.exchange_price_difference = amount
            self.catalogue.put(order)
        return order


def _located(user: User | None, context: ToolContext) -> str:
    if user is None:
        raise ToolError("User not found")
    locate(context, user)
    return user.user_id


def _moved(kind: str, amount: float, payment_method_id: str) -> Payment:
    return Payment(transaction_type=kind, amount=amount, payment_method_id=payment_method_id)


def _address(
    address1: str, address2: str, city: str, state: str, country: str, zip_code: str
) -> Address:
    for name, value in (("address1", address1), ("city", city), ("zip", zip_code)):
        if not value.strip():
            raise ToolError(f"The address needs a {name}.")
    return Address(
        address1=address1,
        address2=address2,
        city=city,
        state=state,
        country=country,
        zip=zip_code,
    )
