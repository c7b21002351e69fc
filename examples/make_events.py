#!/usr/bin/python3
"""Writes examples/events.jsonl: the events of a made-up shop, one JSON object a line.

Users sign up, orders are placed, paid, shipped, cancelled and refunded, people
search, write reviews and upload product data. The lines vary on purpose: flat and
nested, a few words and some kilobytes, many scripts, numbers beyond a double,
empty strings, nulls. The same seed gives the same file.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone

COUNT = 4000
rng = random.Random(20240229)

NAMES = [
    "Ada Lovelace", "Søren Ørsted", "Zoë Müller", "李小龍", "田中 花子", "Олена Шевченко",
    "محمد عبد الله", "José Ñuñez", "Nguyễn Thị Minh Khai", "Ελένη Παπαδοπούλου", "שרה לוי",
    "Anaïs d'Arc", 'Robert "Bob" O\'Neil', "Þóra Guðmundsdóttir", "प्रिया शर्मा", "김민준",
    "Łukasz Żółw", "Grace Hopper", "Chidinma Okafor", "Aylin Yılmaz",
]
CITIES = [("Berlin", "DE"), ("København", "DK"), ("東京", "JP"), ("São Paulo", "BR"), ("Київ", "UA"),
          ("القاهرة", "EG"), ("Reykjavík", "IS"), ("Łódź", "PL"), ("Zürich", "CH"), ("Lagos", "NG"),
          ("İstanbul", "TR"), ("서울", "KR"), ("Boston", "US"), ("मुंबई", "IN")]
THINGS = ["teapot", "lamp", "bicycle bell", "notebook", "compass", "kettle", "rain coat", "globe", "chess set",
          "tin robot", "garden shears", "music box", "Schneekugel", "抹茶碗", "сачок", "piñata", "hammock ☀️", "kite 🪁"]
WORDS = ("the of and a to in is it works well after two weeks still very quiet bright heavy would buy again not what "
         "was promised arrived late box damaged colour differs from picture but support answered within an hour "
         "grüne Farbe très bien отлично 素晴らしい ¡perfecto! 👍 🚀 \"quoted\" back\\slash tab\there").split(" ")
CURRENCIES = ["EUR", "USD", "JPY", "GBP", "KWD"]
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64; rv:115.0)", "shop-app/4.2 (iOS 17.1)", "curl/7.88.1", "shop-app/4.1 (Android 14)"]

clock = datetime(2024, 2, 29, 8, 0, 0, tzinfo=timezone.utc)
users = []
orders = []
number = 0


def hexdigits(count):
    return "".join(rng.choice("0123456789abcdef") for _ in range(count))


def uuid():
    return "-".join(hexdigits(n) for n in (8, 4, 4, 4, 12))


def text(words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def amount(cents, currency):
    if currency == "JPY":
        return cents
    return "%d.%03d" % divmod(cents, 1000) if currency == "KWD" else "%d.%02d" % divmod(cents, 100)


def user_registered():
    city, country = rng.choice(CITIES)
    user = {"id": len(users) + 1, "name": rng.choice(NAMES), "country": country}
    users.append(user)
    return {"user": dict(user, city=city, email="user%d@example.org" % user["id"], newsletter=rng.random() < 0.3,
                         referrer=rng.choice([None, "", "friend", "https://example.com/?q=caf%C3%A9&utm=1"]))}


def order_placed():
    user = rng.choice(users)
    currency = rng.choice(CURRENCIES)
    items = [{"sku": "SKU-%04d" % rng.randrange(10000), "name": rng.choice(THINGS), "quantity": rng.randint(1, 5),
              "price": amount(cents, currency)} for cents in (rng.randrange(100, 30000) for _ in range(rng.choice([1, 1, 2, 3, 8])))]
    order = {"id": 100000 + len(orders), "user": user["id"], "currency": currency, "state": "placed"}
    orders.append(order)
    city, country = rng.choice(CITIES)
    return {"order": {"id": order["id"], "user": user["id"], "currency": currency, "items": items,
                      "gift": {"wrap": True, "card": "Für %s 🎁" % rng.choice(NAMES)} if rng.random() < 0.15 else None,
                      "ship_to": {"name": user["name"], "city": city, "country": country, "lines": ["%d Main St." % rng.randint(1, 300), ""]}}}


def next_step(state, following):
    waiting = [order for order in orders[-400:] if order["state"] == state]
    if not waiting:
        return None
    order = rng.choice(waiting)
    order["state"] = following
    return order


def order_paid():
    order = next_step("placed", "paid")
    if order is None:
        return None
    cents = rng.randrange(100, 90000)
    return {"order": order["id"], "payment": {
        "id": uuid(), "method": rng.choice(["card", "sepa", "paypal", "invoice"]), "amount": amount(cents, order["currency"]),
        "currency": order["currency"], "exact": 0.1 + rng.randrange(100) / 7, "nonce": rng.getrandbits(96),
        "checks": {"3ds": rng.choice([True, False, None]), "risk": {"score": round(rng.random(), 3), "rules": rng.sample(["ip", "velocity", "amount", "country"], rng.randint(0, 3))}}}}


def order_shipped():
    order = next_step("paid", "shipped")
    return order and {"order": order["id"], "parcels": [{"carrier": rng.choice(["DHL", "La Poste", "ヤマト運輸", "Нова пошта"]),
                      "tracking": hexdigits(16).upper(), "kg": round(rng.uniform(0.1, 12), 2)} for _ in range(rng.choice([1, 1, 1, 2]))]}


def order_cancelled():
    order = next_step("placed", "cancelled")
    return order and {"order": order["id"], "reason": rng.choice(["changed mind", "too slow", "", "doppelt bestellt", "間違えた"])}


def payment_refunded():
    order = next_step("shipped", "refunded")
    return order and {"order": order["id"], "payment": {"id": uuid(), "amount": "-" + str(amount(rng.randrange(100, 9000), order["currency"])), "currency": order["currency"]}}


def page_viewed():
    return {"user": rng.choice(users)["id"] if rng.random() < 0.6 else None, "path": "/p/%d" % rng.randrange(9999),
            "agent": rng.choice(AGENTS), "ms": rng.randrange(2000)}


def search_made():
    return {"query": text(rng.randint(0, 4)), "hits": rng.randrange(500)}


def review_written():
    return {"user": rng.choice(users)["id"], "stars": rng.randint(1, 5), "text": text(rng.choice([3, 12, 40, 120]))}


def stock_counted():
    return {"warehouse": rng.choice(["N", "S", "E/2"]), "counts": {"SKU-%04d" % rng.randrange(10000): rng.randrange(400) for _ in range(rng.randint(1, 12))}}


def catalog_uploaded():
    """Some kilobytes, nested deeper than the others."""
    rows = [{"sku": "SKU-%04d" % rng.randrange(10000), "name": rng.choice(THINGS), "tags": rng.sample(WORDS[:30], 4),
             "sizes": [[rng.randrange(100) for _ in range(3)] for _ in range(2)], "text": text(6)} for _ in range(22)]
    tree = {"leaf": text(2)}
    for level in range(12):
        tree = {"level": level, "child": tree}
    return {"file": "katalog-%s.json" % hexdigits(6), "rows": rows, "tree": tree}


KINDS = [
    ("user.registered", user_registered, 8), ("order.placed", order_placed, 22), ("order.paid", order_paid, 18),
    ("order.shipped", order_shipped, 14), ("order.cancelled", order_cancelled, 3), ("payment.refunded", payment_refunded, 3),
    ("page.viewed", page_viewed, 16), ("search.made", search_made, 6), ("review.written", review_written, 5),
    ("stock.counted", stock_counted, 4), ("catalog.uploaded", catalog_uploaded, 1),
]


def event(kind, data):
    global number, clock
    number += 1
    clock += timedelta(milliseconds=rng.randrange(1, 4000))
    return {"event": uuid(), "number": number, "type": kind, "at": clock.isoformat(timespec="milliseconds"), "data": data}


def main():
    weights = [weight for _, _, weight in KINDS]
    events = [event("user.registered", user_registered()), event("order.placed", order_placed())]
    while len(events) < COUNT:
        kind, make, _ = rng.choices(KINDS, weights)[0]
        data = make()
        if data is not None:
            events.append(event(kind, data))
    for one in events:
        sys.stdout.write(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
