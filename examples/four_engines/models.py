"""A table in SQL's words and an ordinary model. Their keys are what the database calls keys."""

from __future__ import annotations

from django.db import models

from orm_app import Field, Model


class Customer(Model):
    _table_name = "shop_customers"
    _fields = {
        "name": Field("VARCHAR(50)", unique=True, nullable=False),
        "balance": Field("DECIMAL(10, 2)", nullable=False, default=0),
        "is_active": Field("BOOLEAN", nullable=False, default=True),
        "joined_at": Field("TIMESTAMP", default="CURRENT_TIMESTAMP"),
    }

    def __str__(self) -> str:
        return str(self.name)


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    item = models.CharField(max_length=80)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    placed_on = models.DateField()
    rating = models.SmallIntegerField(null=True)

    class Meta:
        db_table = "shop_orders"
        constraints = [models.UniqueConstraint(fields=["customer", "item"], name="shop_item_once")]

    def __str__(self) -> str:
        return self.item
