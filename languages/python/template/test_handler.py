"""`python3 -m unittest`, or pytest, runs the handler without a sandbox."""

import unittest

from handler import handle
from sandhog import Job, retry


class Greeting(unittest.TestCase):
    def test_greets_by_name(self):
        self.assertEqual(handle(Job({"name": "Ada"})), "Hello, Ada!")

    def test_greets_later_if_asked_to(self):
        self.assertEqual(handle(Job({"name": "Ada", "later": True})), retry(after="5s"))
