"""
watch.py
	Looks fifty times a second whether a runner has a transaction open. One that waits
	in queue.wait() has none that holds anything back, and is not looked at; it would
	be if it had a snapshot.
"""

import threading
import time

import psycopg2

# A transaction of a runner that is older, s.
OLD = 2.0

SAMPLE = """
	SELECT pid, coalesce(nullif(backend_type, 'client backend'), application_name), state, wait_event_type, wait_event,
		   extract(epoch FROM clock_timestamp() - xact_start)::float8, extract(epoch FROM xact_start)::text, left(query, 100)
	FROM pg_stat_activity
	WHERE (backend_type = 'queue relay' OR application_name LIKE 'queue-relay%')
		  AND NOT (query LIKE 'CALL queue.wait%' AND backend_xmin IS NULL AND backend_xid IS NULL)"""


class Watch(threading.Thread):
    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.over = threading.Event()
        self.oldest = 0.0
        self.oldest_text = ""
        self.samples = 0
        self.in_holes = 0           # with a runner, while nothing passed to the destination
        self.hole = False
        self.excuse = 0.0           # until when the runner itself was stopped, or cut off from the server
        self.open = {}              # by pid and begin

    def run(self):
        connection = None
        while not self.over.is_set():
            try:
                if connection is None:
                    connection = self.server.connect()
                with connection.cursor() as cursor:
                    cursor.execute(SAMPLE)
                    self.look(cursor.fetchall())
            except psycopg2.Error:
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(0.02)
        if connection is not None:
            connection.close()

    def look(self, rows):
        self.samples += len(rows)
        if self.hole:
            self.in_holes += len(rows)
        for pid, name, state, kind, event, age, began, query in rows:
            if age is None or time.monotonic() < self.excuse:
                continue
            text = "%s, pid %d, %s, waits for %s/%s, for %.1f s: %s" % (name, pid, state, kind, event, age, query)
            if age > self.oldest:
                self.oldest = age
                self.oldest_text = text
            if age > OLD:
                self.open[pid, began] = text

    def found(self):
        self.over.set()
        self.join()
        return {"oldest": self.oldest, "open": list(self.open.values())}
