#!/usr/bin/python3
"""Stores events and enqueues them, both in one transaction.

    producer.py FILE --share I/N [--abandon K]

Takes every N-th line of FILE, beginning with the I-th. Each K-th of them is rolled
back after it was enqueued, as if the business had changed its mind: nobody may ever
see it. Prints one line an event: committed, abandoned or refused, and its number.
The connection comes from the PG* environment variables.
"""

import argparse
import json

import psycopg2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--abandon", type=int, default=0)
    args = parser.parse_args()
    share, shares = map(int, args.share.split("/"))

    connection = psycopg2.connect("")
    with open(args.file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if number % shares != share or not line.strip():
                continue
            abandon = args.abandon and number // shares % args.abandon == 0
            print(store(connection, share, number, line, abandon), number, flush=True)


def store(connection, producer, number, line, abandon):
    try:
        event = json.loads(line)
        kind = event.get("type", "event") if isinstance(event, dict) else "event"
        cursor = connection.cursor()
        cursor.execute("SELECT queue.enqueue('events', %s, headers => %s)", (line, json.dumps({"number": number})))
        (message,) = cursor.fetchone()
        cursor.execute("INSERT INTO events (number, type, body, producer, message) VALUES (%s, %s, %s, %s, %s)",
                       (number, str(kind), line, producer, message))
    except (ValueError, psycopg2.DataError) as error:  # not JSON, or JSON that jsonb cannot hold
        connection.rollback()
        return "refused (%s)" % str(error).split("\n")[0]
    if abandon:
        connection.rollback()
        return "abandoned"
    connection.commit()
    return "committed"


main()
