"""Reads a CSV file of sales, checks every row, and sums them up. Rows that make no sense become jobs of their own."""

import csv
from collections import Counter, defaultdict
from datetime import date
from decimal import Decimal, InvalidOperation

from sandhog import Job, Outcome, complete, enqueue, log, reject

COLUMNS = ["date", "shop", "product", "quantity", "price"]

ROWS_A_JOB = 500
"""So many rejected rows go into one follow-up job: an attempt may enqueue 1,000 jobs."""


def handle(job: Job) -> Outcome:
    path = job.json()["file"]
    try:
        file = open(path, newline="", encoding="utf-8-sig")
    except FileNotFoundError:
        return reject(f"there is no `{path}`")
    with file:
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            return reject(f"`{path}` has the columns {rows.fieldnames}, not {COLUMNS}")
        summary, rejected = sum_up(rows)
    for start in range(0, len(rejected), ROWS_A_JOB):
        enqueue({"job_type": "rejected-rows", "file": path, "rows": rejected[start : start + ROWS_A_JOB]})
    log.info("%s: %d rows, %d of them rejected", path, summary["rows"], len(rejected))
    return complete(summary | {"rejected": len(rejected)})


def sum_up(rows: csv.DictReader) -> tuple[dict, list[dict]]:
    """What the good rows come to, and the bad ones with what is wrong with them."""
    revenue: defaultdict[str, Decimal] = defaultdict(Decimal)
    sold: Counter[str] = Counter()
    rejected = []
    for row in rows:
        try:
            month, shop, product, quantity, price = parse(row)
        except ValueError as why:
            rejected.append({"line": rows.line_num, "why": str(why)})
            continue
        revenue[f"{month} {shop}"] += quantity * price
        sold[product] += quantity
    summary = {
        "rows": rows.line_num - 1,
        "revenue": {key: str(value) for key, value in sorted(revenue.items())},
        "best_sellers": [list(pair) for pair in sold.most_common(3)],
    }
    return summary, rejected


def parse(row: dict[str, str]) -> tuple[str, str, str, int, Decimal]:
    """One row, or a ValueError that says what is wrong with it."""
    if None in row or None in row.values():
        raise ValueError("has not as many fields as there are columns")
    if not row["shop"] or not row["product"]:
        raise ValueError("names no shop or no product")
    month = date.fromisoformat(row["date"]).strftime("%Y-%m")
    quantity = int(row["quantity"])
    try:
        price = Decimal(row["price"])
    except InvalidOperation:
        raise ValueError(f"`{row['price']}` is no price") from None
    if quantity <= 0 or price < 0:
        raise ValueError("sells less than nothing")
    return month, row["shop"], row["product"], quantity, price
