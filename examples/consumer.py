#!/usr/bin/python3
"""Takes events from the queue, writes a result for each, and acks it in the same transaction.

    consumer.py --name I [--stall-after N]

Runs until SIGTERM. With --stall-after it stops dead after N events, in the middle of a
transaction and holding a batch: that is the one to kill. Prints a line for each
delivery (delivered, id, attempt). The connection comes from the PG* environment
variables.
"""

import argparse
import hashlib
import signal
import time

import psycopg2
import psycopg2.extras

BATCH = 10
LEASE = "5 s"  # how long the messages of a consumer that dies stay away: short, to see it soon

LEASE_LOST = "QU001"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", type=int, default=0)
    parser.add_argument("--stall-after", type=int)
    args = parser.parse_args()

    running = True

    def stop(_signal, _frame):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    psycopg2.extras.register_default_jsonb(globally=True, loads=lambda text: text)
    connection = psycopg2.connect("")
    taken = 0
    while running:
        messages = take(connection)
        for message, _, attempt, _, _ in messages:
            print("delivered", message, attempt)
        print(end="", flush=True)
        taken += len(messages)
        stall_at = len(messages) // 2 if args.stall_after is not None and taken > args.stall_after else -1
        for position, message in enumerate(messages):
            work(connection, args.name, message, stall=position == stall_at)


def take(connection):
    """Leases a batch, or sleeps in the server until there is something to lease."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, receipt, attempt, headers ->> 'number', payload"
                       " FROM queue.dequeue('events', %s, lease => %s, wait => '1 s')", (BATCH, LEASE))
        return cursor.fetchall()


def work(connection, name, row, stall):
    """The result and the ack commit together, so there is exactly one result, however often it is delivered."""
    message, receipt, attempt, number, payload = row
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO results (message, number, digest, consumer, attempt) VALUES (%s, %s, %s, %s, %s)",
                           (message, number, hashlib.md5(payload.encode()).hexdigest(), name, attempt))
            cursor.execute("SELECT queue.ack(%s)", (receipt,))
            if stall:
                print("stalled", message, flush=True)
                time.sleep(600)
    except psycopg2.Error as error:
        if error.pgcode != LEASE_LOST:
            raise
        # Too slow: somebody else has the message now, and our result is rolled back.


main()
