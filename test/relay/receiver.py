#!/usr/bin/python3 -B
"""
receiver.py
	An HTTP destination: appends what it accepts to a file, and sometimes
	misbehaves.

	receiver.py PORT FILE SEED calm|wild|deadly

A line is on disk before 200 is said. Wild, it refuses, answers late, or not at
all, before it has stored an event or after. Deadly, there are also events that it
never accepts.
"""

import http.server
import json
import os
import random
import re
import sys
import threading
import time

from facts import of_payload

# What may come instead of a 200, by odds; with "stored", after the event was stored.
ODDS = (
    ("500", 0.008), ("500 stored", 0.004), ("503", 0.001), ("429", 0.0005), ("409", 0.002),
    ("close", 0.003), ("close stored", 0.004), ("half stored", 0.002),
    ("late", 0.003), ("late stored", 0.003), ("very late", 0.0005), ("very late stored", 0.0005),
)

# One of a hundred ids.
DEADLY = re.compile(r"\d*37-")


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet.
    wbufsize = -1

    file = -1
    lock = threading.Lock()
    rng = random.Random()
    mood = "calm"

    def store(self, body):
        facts = of_payload(json.loads(body), self.headers["webhook-id"])
        if self.headers["queue-key"] is not None and self.headers["queue-key"] != facts["lane"] or \
                self.headers["ce-id"] != facts["id"]:
            facts["sum"] = "other headers"
        line = json.dumps(facts) + "\n"
        with self.lock:
            os.write(self.file, line.encode())
            os.fdatasync(self.file)

    def draw(self, body):
        if self.mood == "deadly" and DEADLY.match(self.headers["webhook-id"]):
            return "422" if json.loads(body)["n"] % 2 else "500"
        dice = self.rng.random()
        for mood, odds in ODDS if self.mood != "calm" else ():
            if dice < odds:
                return mood
            dice -= odds
        return ""

    def do_POST(self):
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        mood = self.draw(body)
        if mood.endswith("stored") or mood == "":
            self.store(body)
        if mood.startswith("very late"):
            time.sleep(self.rng.uniform(2, 5))
        elif mood.startswith("late"):
            time.sleep(self.rng.uniform(0, 2))
        if mood in ("late", "very late"):
            self.store(body)
        self.answer(mood.split(" ", 1)[0])

    def answer(self, mood):
        if mood == "close":
            self.close_connection = True
        elif mood == "half":
            self.wfile.write(b"HTTP/1.1 200 O")
            self.close_connection = True
        elif mood in ("500", "503", "429", "409", "422"):
            self.send_response(int(mood))
            if mood == "503":
                self.send_header("retry-after", "1")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, *_):
        """A connection that was cut."""


def main():
    port, path, seed, mood = sys.argv[1:]
    Receiver.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    Receiver.rng = random.Random(seed)
    Receiver.mood = mood
    Server(("127.0.0.1", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main()
