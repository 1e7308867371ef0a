"""The program. Nothing in it knows which engine it runs on, and it prints the same on each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from django.db import connections
from django.db.models import Count, F, Sum

from orm_app import db

from .models import Customer, Order

SHOP = "shop"
Say = Callable[[str], None]


def run(say: Say) -> None:
    make()
    try:
        insert(say)
        query(say)
        page(say)
        transact(say)
        upsert(say)
        asyncio.run(within_a_loop(say))
    finally:
        remove()


def insert(say: Say) -> None:
    ann = Customer(name="ann", balance=100).save()
    db.query(Customer).bulk_insert({"name": name, "balance": 20} for name in ("bob", "cyd"))
    items = ("tea", "pot", "cup", "tray", "milk", "sugar", "100% rye")
    orders = [
        Order(customer=ann, item=item, price=Decimal(n), placed_on=date(2026, 11, n))
        for n, item in enumerate(items, 1)
    ]
    bob = db.query(Customer).get(name="bob")
    orders.append(
        Order(customer=bob, item="tea", price=Decimal("2.50"), placed_on=date(2026, 11, 9), rating=5)
    )
    say(f"inserted {db.query(Order).bulk_insert(orders)} orders of {db.query(Customer).count()} customers")


def query(say: Say) -> None:
    orders = db.query(Order).order_by("placed_on")
    say(f"like t%: {_items(orders.where_like('item', 't%').all())}")
    literal = r"100\%%"
    say(f"like {literal}: {_items(orders.where_like('item', literal).all())}")
    say(f"between 2 and 3: {_items(orders.where_between('price', 2, 3).all())}")
    say(f"in, or rated 5: {_items(orders.where_in('item', ['pot', 'cup']).or_where(rating=5).all())}")
    say(
        f"not rated: {orders.where_eq('rating', None).count()}; not tea: {orders.exclude(item='tea').count()}"
    )
    say(f"of bob: {_items(orders.where_eq('customer.name', 'bob').all())}")
    related = orders.with_related("customer").limit(2).offset(6).all()
    say(f"with the customer: {', '.join(f'{order.item} of {order.customer.name}' for order in related)}")
    groups = db.query(Order).group_by("item").aggregate(many=Count("pk"), sum=Sum("price"))
    say(
        f"ordered twice: {[(one['item'], one['many'], _money(one['sum'])) for one in groups.where(many=2).all()]}"
    )
    total = db.query(Order).aggregate(total=Sum("price"))["total"]
    say(f"all orders together: {_money(total)}")


def page(say: Say) -> None:
    orders, cursor, number = db.query(Order).order_by("rating", "-price"), None, 0
    while number == 0 or cursor:
        found = orders.page_after(cursor, size=3)
        cursor, number = found.cursor, number + 1
        # Which orders these are, engines see differently: NULL comes first in some and last in others.
        say(f"page {number} has {len(found)} orders{', and there are more' if found.has_more else ''}")
    say(f"streamed: {sorted(order.item for order in orders.stream(size=2))}")


def transact(say: Say) -> None:
    move("ann", "bob", Decimal("30.00"))
    say(f"after the transfer: {_balances()}")
    try:
        move("ann", "bob", Decimal("500.00"))
    except ValueError as error:
        say(f"refused: {error}; {_balances()}")


@db.transaction(SHOP, retry=3)
def move(source: str, target: str, amount: Decimal) -> None:
    db.query(Customer).where_eq("name", source).update(balance=F("balance") - amount)
    db.query(Customer).where_eq("name", target).update(balance=F("balance") + amount)
    if db.query(Customer).get(name=source).balance < 0:
        raise ValueError(f"{source} has not got {amount}")


def upsert(say: Say) -> None:
    rows = [{"name": "ann", "is_active": False}, {"name": "dee", "is_active": True}]
    say(f"upserted {db.query(Customer).upsert(rows, unique='name')} customers")
    say(f"active: {db.query(Customer).where(is_active=True).order_by('name').values('name', flat=True)}")
    say(f"the balance of ann is as it was: {_money(db.query(Customer).get(name='ann').balance)}")


async def within_a_loop(say: Say) -> None:
    eve = await Customer(name="eve", balance=5).save()
    try:
        async with db.transaction(SHOP):
            await db.query(Customer).where(pk=eve.pk).update(balance=0)
            raise LookupError
    except LookupError:
        say(f"rolled back: eve has {_money((await db.query(Customer).get(name='eve')).balance)}")
    names = [customer.name async for customer in db.query(Customer).order_by("-balance", "name")]
    say(f"by balance: {names}")
    gone = await db.query(Customer).where_eq("name", "ann").delete()
    say(f"deleted {gone} customer, and with it her orders: {await db.query(Order).count()} is left")


def make() -> None:
    """A project has migrations, which write down what a key is; these are of one kind or the other."""
    with connections[SHOP].schema_editor() as editor:
        for model in (Customer, Order):
            editor.create_model(model)


def remove() -> None:
    with connections[SHOP].schema_editor() as editor:
        for model in (Order, Customer):
            editor.delete_model(model)


def _items(orders: list[Order]) -> list[str]:
    return [order.item for order in orders]


def _balances() -> str:
    found = db.query(Customer).order_by("balance", "name").values("name", "balance")
    return ", ".join(f"{one['name']} {_money(one['balance'])}" for one in found)


def _money(amount: Decimal) -> str:
    return f"{amount:.2f}"
