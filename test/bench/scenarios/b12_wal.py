"""WAL bytes (pg_current_wal_insert_lsn before and after) for a message's whole
life, one client, full_page_writes off in the window, so that no page image is
in it. *single*: enqueue, dequeue and ack, each a transaction of its own.
*batches*: enqueue_batch of 1000, dequeue and ack of 100. Vacuum, which the
tables need some time later, is not in the numbers. PgQ's events are read for
nothing here: its WAL is the insert and the ticks. The limit is an INSERT and a
DELETE by ctid.

*old pages*: what dequeue and ack of a message write in batches when the whole
backlog is older than the last checkpoint, full_page_writes on; *checksums*:
the same on a server with data checksums, where setting a hint bit needs a page
image too."""

from contenders import FILL_BATCH
from results import Goal
from scenarios.b02_enqueue_batch import make_batches
from server import private_server, stop_server

ID = "B12"
TITLE = "WAL bytes a message"
CONTENDERS = ["queue", "plain", "skiplocked", "pgq", "pgmq"]
METRICS = {
    "enqueue": "enqueue 1",
    "consume": "dequeue + ack 1",
    "single": "single, sum",
    "enqueue batch": "enqueue 1000",
    "consume batch": "dequeue + ack 100",
    "batches": "batches, sum",
    "old pages": "dequeue + ack 100, old pages",
    "checksums": "the same, checksums",
}
PLOTTED = ["single", "batches"]
GOALS = [
    Goal("single, bytes", ("queue", "single"), "<=", 400),
    Goal("in batches, bytes", ("queue", "batches"), "<=", 260),
]
BATCH = 100


def run(turn):
    make_batches(turn)
    turn.server.configure("full_page_writes", "off")
    try:
        for repetition, contender in turn.each():
            turn.attempt(contender, measure_life, turn, repetition)
    finally:
        turn.server.configure("full_page_writes")
    for repetition, contender in turn.each(["queue", "skiplocked", "pgmq"]):
        turn.attempt(contender, measure_old_pages, turn, repetition, "old pages")
    measure_checksums(turn)


def messages(turn):
    return 2000 if turn.options.quick else 10000


def written(server, count, script, times, **variables):
    """WAL bytes a message of a script that one client runs."""
    before = server.wal()
    server.pgbench(script, 1, transactions=times, **variables)
    return (server.wal() - before) / count


def measure_life(contender, turn, repetition):
    count = messages(turn)
    payload = {"payload": contender.payload}

    def note(metric, value, batch):
        turn.add(repetition, contender, metric, value, "bytes", 1, batch)
        return value

    contender.reset()
    turn.settle()
    total = note("enqueue", written(contender.server, count, contender.enqueue, count, **payload), 1)
    if consumes(contender, 1):
        total += note("consume", consumed(contender, count, 1), 1)
        note("single", total, 1)

    contender.reset()
    turn.settle()
    script = contender.batch_script(contender.enqueue_many)
    total = note("enqueue batch", written(contender.server, count, script, count // FILL_BATCH, loaded=0), 1000)
    if consumes(contender, BATCH):
        total += note("consume batch", consumed(contender, count, BATCH), BATCH)
        note("batches", total, BATCH)
    contender.drop()


def consumes(contender, batch):
    """PgQ's batches are its ticks'; the limit deletes one row at a time."""
    return contender.name != "pgq" and (batch == 1 or contender.name != "plain")


def consumed(contender, count, batch):
    """WAL bytes a message to empty what was filled with count messages."""
    contender.tidy()
    # Nothing may look at the rows from here on: it would set their hint bits.
    contender.server.execute("CHECKPOINT")
    bytes_a_message = written(
        contender.server, count, contender.consume(batch), count // batch, **contender.variables(1)
    )
    if contender.left() > count * 0.01:
        raise RuntimeError(f"{contender.left()} of {count} are left")
    return bytes_a_message


def measure_old_pages(contender, turn, repetition, metric):
    count = messages(turn) * 5
    contender.reset()
    contender.fill(count)
    value = consumed(contender, count, BATCH)
    turn.add(repetition, contender.name, metric, value, "bytes", 1, BATCH)
    contender.drop()


def measure_checksums(turn):
    server = private_server("checksums", checksums=True)
    try:
        for contender in [type(c)(server, turn.options) for c in turn.contenders.values()]:
            if contender.name in ("queue", "skiplocked", "pgmq"):
                turn.attempt(contender, lambda c: c.install())
                for repetition in range(turn.options.reps):
                    if contender.name not in turn.failed:
                        turn.attempt(contender, measure_old_pages, turn, repetition, "checksums")
    finally:
        stop_server(server, "checksums")
