"""`python3 -m unittest`, or pytest, runs the handler without a sandbox."""

import csv
import tempfile
import unittest

from handler import handle, sum_up
from sandhog import Job, complete, reject, testing

HEAD = "date,shop,product,quantity,price\n"


class Etl(unittest.TestCase):
    def setUp(self):
        testing.reset()

    def test_bad_rows_are_reported_and_good_ones_counted(self):
        text = HEAD + "2026-01-31,north,tea,2,1.50\n2026-01-30,north,tea,1,0.10\nsoon,north,tea,1,1\n2026-01-01,north,tea,0,1\n"
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write(text)
            file.flush()
            outcome = handle(Job({"file": file.name}))
        expected = {"rows": 4, "revenue": {"2026-01 north": "3.10"}, "best_sellers": [["tea", 3]], "rejected": 2}
        self.assertEqual(outcome, complete(expected))
        [(job, _)] = testing.enqueued
        self.assertEqual([row["line"] for row in job["rows"]], [4, 5])

    def test_row_with_too_many_fields_is_rejected(self):
        _, rejected = sum_up(csv.DictReader((HEAD + "2026-01-01,north,tea,1,1,1\n").splitlines()))
        self.assertEqual(len(rejected), 1)

    def test_file_that_is_not_there_is_never_tried_again(self):
        self.assertEqual(handle(Job({"file": "/nowhere.csv"})), reject("there is no `/nowhere.csv`"))
