"""The SDK without a sandbox. `tests/languages` has it inside of one."""

import pathlib
import sys
import threading
import unittest
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "sdk"))
import sandhog


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503)
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(self.headers["content-type"].encode() + b" " + body)

    def log_message(self, *_):
        pass


class Sdk(unittest.TestCase):
    def setUp(self):
        sandhog.testing.reset()

    def test_delays_are_written_as_in_the_manifest(self):
        delays = ["500ms", "30s", "1.5m", "1h 30m", "2d", 0.25, 7, timedelta(minutes=1)]
        after = [sandhog.retry(after=delay).after_ms for delay in delays]
        self.assertEqual(after, [500, 30_000, 90_000, 5_400_000, 172_800_000, 250, 7_000, 60_000])
        for bad in ["", "5", "5 parsecs", "-1s", "50d", -1]:
            with self.assertRaises(ValueError, msg=bad):
                sandhog.retry(after=bad)

    def test_job_of_an_object_has_it_as_its_body(self):
        job = sandhog.Job({"a": "ü"}, metadata=[("queue", "q"), ("header.x", "1"), ("header.x", "2")])
        self.assertEqual((job.json(), job.value("queue"), job.header("x")), ({"a": "ü"}, "q", "1"))
        self.assertIsNone(job.header("y"))

    def test_follow_ups_are_recorded_with_their_options(self):
        sandhog.enqueue({"job_type": "a", "n": 1}, after="5s", key="k", headers={"x": "y"})
        expected = ({"job_type": "a", "n": 1}, {"after-ms": "5000", "key": "k", "header.x": "y"})
        self.assertEqual(sandhog.testing.enqueued, [expected])

    def test_state_is_kept_until_it_is_reset(self):
        self.assertEqual([sandhog.state.increment("n"), sandhog.state.increment("n", 4)], [1, 5])
        sandhog.state.set("a", b"\xff")
        self.assertEqual((sandhog.state.keys(), sandhog.state.get_bytes("a")), (["a", "n"], b"\xff"))
        sandhog.state.delete("a")
        self.assertEqual(sandhog.state.keys(), ["n"])

    def test_any_status_is_an_answer_and_no_answer_an_error(self):
        server = HTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        response = sandhog.http.post(url, json={"a": 1})
        self.assertEqual((response.status, response.ok, response.header("Retry-After")), (503, False, "7"))
        self.assertEqual(response.text(), 'application/json {"a": 1}')
        server.shutdown()
        server.server_close()
        with self.assertRaises(sandhog.Error):
            sandhog.http.get(url)


if __name__ == "__main__":
    unittest.main()
