"""`python3 -m unittest`, or pytest, runs the handler without a sandbox."""

import unittest

from handler import Counter
from sandhog import Job, testing


class Counting(unittest.TestCase):
    def test_counts_from_job_to_job(self):
        testing.reset()
        counter = Counter()
        counter.set_up()
        self.assertEqual([counter.handle(Job()), counter.handle(Job())], [1, 2])
        counter.tear_down()
        self.assertEqual(testing.log[-1], ("info", "jobs worked: 2"))
