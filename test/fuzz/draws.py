"""
draws.py
	What is drawn: values of each type, calls of each function, statements
	around them, and sequences of statements.

All are texts of SQL without parameters, so that a log of them can be replayed
by psql.
"""

import json
import uuid

ROLES = ["fuzz_owner", "fuzz_all", "fuzz_producer", "fuzz_consumer", "fuzz_peeker", "fuzz_nobody", "fuzz_monitor"]

OPTIONS = """if_not_exists lease_timeout lease_max max_attempts backoff backoff_base backoff_max backoff_jitter
    backoff_list dead_letter message_ttl on_expiry notify segment_size aging_step block_timeout dedup_scope dedup_window
    durable_attempts high_watermark lease_scope low_watermark max_bytes max_messages non_retryable on_dead ordered
    overflow priority_mode retention single_active_consumer unique_key on_conflict cost consumer key attempt_id
    error_class progress states older_than""".split()

LIKELY = {
    "max_attempts": [0, 1, 2, 3, "2", 1000000, 1000001], "lease_timeout": ["1 ms", "10 ms", "1 s", 0.05, "1 year"],
    "lease_max": ["1 ms", "1 s", "1 h", "1 year"], "backoff": ["none", "fixed", "linear", "exponential", "list"],
    "backoff_base": [0, "1 ms", "1 s"], "backoff_max": [0, "1 ms", "1 h"], "backoff_jitter": [0, 0.5, 1],
    "backoff_list": [[0], ["1 ms", 2], []], "dead_letter": ["", "plain", "small_dead", "canary", "canary_in"],
    "message_ttl": [0, "1 ms", "1 s"], "on_expiry": ["drop", "dead_letter"], "notify": [True, False],
    "segment_size": ["64kB", 65536, "1MB", "4GB"], "if_not_exists": [True, False],
    "states": [["ready"], ["leased"], ["failed", "delayed"], ["ready", "leased", "failed", "delayed"], []],
    "single_active_consumer": [True, False], "key": ["", "a", "k" * 512, "k" * 513],
    "older_than": ["1 ms", "0", "1 day"], "consumer": ["me", "é" * 31, "x" * 64], "max_bytes": [1, 1000, 10 ** 9],
}

COLUMNS = """id state enqueued_at deliver_at delay expires_at ttl key priority headers payload body dedup_key unique_key
    options failures last_error lease_until lease_owner""".split()
GIVEN = ["payload", "body", "key", "headers", "delay", "deliver_at", "ttl", "options"]
TYPES = {"id": "int8", "enqueued_at": "timestamptz", "deliver_at": "timestamptz", "delay": "interval",
         "expires_at": "timestamptz", "ttl": "interval", "priority": "int2", "headers": "jsonb", "payload": "jsonb",
         "body": "bytea", "options": "jsonb", "failures": "int4", "lease_until": "timestamptz", "lease_owner": "oid"}

SETTINGS = {
    "DateStyle": ["'SQL, DMY'", "German", "'Postgres, YMD'", "ISO"],
    "IntervalStyle": ["sql_standard", "postgres_verbose", "iso_8601", "postgres"],
    "TimeZone": ["'Asia/Kathmandu'", "'-23:59'", "UTC", "'America/St_Johns'"],
    "client_encoding": ["LATIN1", "UTF8", "SQL_ASCII", "EUC_JP", "WIN1252", "UTF8"],
    "work_mem": ["'64kB'", "'1GB'"], "temp_buffers": ["'800kB'"],
    "search_path": ["hostile, pg_catalog", "hostile, pg_catalog, queue, queues", "''", "queue, queues, hostile",
                    "pg_temp, hostile, pg_catalog, fuzz", "DEFAULT"],
    "session_replication_role": ["replica", "local", "origin"],
    "default_transaction_isolation": ["serializable", "'repeatable read'", "'read committed'"],
    "default_transaction_read_only": ["on", "off", "off"], "default_transaction_deferrable": ["on", "off"],
    "statement_timeout": ["1", "3", "10", "50", "1500", "1500"], "lock_timeout": ["1", "10", "300"],
    "parallel_setup_cost": ["0"], "parallel_tuple_cost": ["0"], "min_parallel_table_scan_size": ["0"],
    "row_security": ["off", "on"], "check_function_bodies": ["off"], "plan_cache_mode": ["force_generic_plan", "auto"],
    "bytea_output": ["escape", "hex"], "extra_float_digits": ["-15", "3"], "array_nulls": ["off", "on"],
    "quote_all_identifiers": ["on", "off"], "standard_conforming_strings": ["off", "on"],
    "transform_null_equals": ["on"], "synchronous_commit": ["off", "local"], "enable_seqscan": ["off", "on"],
    "enable_material": ["off"], "default_toast_compression": ["pglz"], "jit_above_cost": ["0", "100000"],
    "default_tablespace": ["'nowhere'", "''"], "default_table_access_method": ["nothing", "heap"],
    "application_name": ["'%s'" % ("é" * 40), "''"], "lc_monetary": ["C"], "xmloption": ["document"],
    "role": ROLES + ["none", "none"], "client_min_messages": ["debug1", "error", "notice"],
    "transaction_isolation": ["serializable", "'read committed'"], "transaction_read_only": ["on"],
}

BIG = 1048576


def quote(text):
    return "'" + text.replace("'", "''") + "'"


def identifier(name):
    return '"' + name.replace('"', '""') + '"'


def escaped(text):
    """A literal that says the same whatever standard_conforming_strings is."""
    return "E'" + "".join(char if char.isalnum() or char in " _-" else
                          "\\U%08X" % ord(char) if char != "'" else "''" for char in text) + "'"


class Draws:
    """Draws for one session; "world" is what the main program last saw."""

    def __init__(self, rng, functions, major):
        self.rng = rng
        self.functions = functions
        self.major = major
        self.world = {"queues": ["plain"], "segments": [], "receipts": [], "guarded": [], "oids": [0], "ids": []}
        self.receipts = []          # that this session has seen
        self.ids = []
        self.prepared = 0
        self.name = ""
        self.views = []
        self.superuser = False
        self.sane = False

    def one(self, *choices):
        return self.rng.choice(choices)

    def chance(self, odds):
        return self.rng.random() < odds

    # ----- values

    def name_of_queue(self):
        """Never a canary for a superuser, who may do anything to it."""
        names = [name for name in self.world["queues"]
                 if not (self.superuser and name.startswith("canary"))]
        if self.chance(0.85) and names:
            return self.rng.choice(names)
        return self.one("", "new", "new2", "new3", 'q"uote', "o'clock", "new\nline", "ñ" * 24, "x" * 48, "x" * 49, "x" * 63,
                        "y" * 200, "PLAIN", "pg_class", "queues.plain", "plain_dead", "new_dead", "🐘", "_segment", "\\", " ",
                        "x" * 44 + "_dead", "y" * 48 + "_dead")

    def text(self):
        return self.one("''", "'a'", "'o''clock'", "'\"q\"'", "E'\\n\\t\\\\'", "'🐘'", "'é'", "E'\\x01'", "repeat('é', 100)",
                        "repeat('x', %d)" % BIG, "fuzz.noise(%d)" % BIG, "fuzz.noise(3000)", "'null'", "'0'", "'queue.x'",
                        "quote_literal('x')", "NULL", "'ready'", "'dequeue'", "'enqueue'", "'both'")

    def value_of_json(self, depth=0):
        dice = self.rng.randrange(14 if depth < 3 else 11)
        if dice < 11:
            return self.one(None, True, False, 0, 1, -1, 1e300, 0.5, 2 ** 31, 10 ** 30, "", "x", "é", "1 s", "-1 s", "queue.x",
                            "plain", "infinity", "99999999 years", "nan")
        if dice < 13:
            return [self.value_of_json(depth + 1) for _ in range(self.rng.randrange(4))]
        return {self.key_of_json(): self.value_of_json(depth + 1) for _ in range(self.rng.randrange(4))}

    def key_of_json(self):
        if self.chance(0.5):
            return self.rng.choice(OPTIONS)
        return self.one("", "a", "queue.", "queue.death", "é", "x" * 70, "max_attemps", "A\nb", '"')

    def options(self):
        given = {}
        for _ in range(self.rng.randrange(4)):
            key = self.rng.choice(sorted(LIKELY)) if self.chance(0.7) else self.key_of_json()
            given[key] = (self.rng.choice(LIKELY[key]) if key in LIKELY and self.chance(0.8)
                          else self.value_of_json())
            if self.superuser and str(given[key]).startswith("canary"):
                del given[key]
        return escaped(json.dumps(given, ensure_ascii=self.chance(0.5)))

    def jsonb(self):
        dice = self.rng.random()
        if dice < 0.35:
            return escaped(json.dumps(self.value_of_json()))
        if dice < 0.6:
            return self.options()
        return self.one("'{}'", "'null'", "'{\"a\": 1}'", "'{\"queue.x\": 1}'", "'{\"max_attempts\": 1}'", "'1'", "'[]'", "NULL",
                        "(repeat('[', 500) || repeat(']', 500))::pg_catalog.jsonb",
                        "(repeat('[', 100000) || repeat(']', 100000))::pg_catalog.jsonb",
                        "to_jsonb(repeat('x', %d))" % BIG, "to_jsonb(fuzz.noise(%d))" % BIG, "to_jsonb(fuzz.noise(2500))",
                        "jsonb_build_object('a', fuzz.noise(2100))", "'{\"a\": \"\\u0000\"}'", "'{'", "''",
                        "'{\"a\": 1e400}'", "to_jsonb(now())", "(SELECT jsonb_object_agg(n, n) FROM generate_series(1, 300) n)")

    def interval(self):
        return self.one("NULL", "'0'", "'1 ms'", "'10 ms'", "'1 s'", "'1 h'", "'-1 s'", "'1 us'", "'1 mon -30 days'",
                        "'-1 mon 31 days'", "'1000 years'", "'1000 years 1 us'", "'178000000 years'", "'-178000000 years'",
                        "'infinity'", "'2147483647 days'", "'9223372036854775807 us'", "'-9223372036854775808 us'", "'1 year'",
                        "'12 h'", "make_interval(secs => 0.001)", "'x'", "''")

    def timestamptz(self):
        return self.one("NULL", "now()", "clock_timestamp() + '1 s'", "clock_timestamp() + '10 ms'", "'infinity'", "'-infinity'",
                        "'294276-12-31 23:59:59.999999+00'", "'4713-01-01 00:00:00+00 BC'", "'epoch'", "'2000-01-01'", "'9999-01-01'",
                        "now() - interval '1 day'", "now() + interval '1 day'", "'allballs'", "''")

    def int4(self):
        return self.one("0", "1", "1", "1", "2", "3", "5", "20", "100", "-1", "10000", "10001", "2147483647", "-2147483648", "NULL",
                        "2147483648")

    def int8(self):
        known = [str(number) for number in (self.ids + self.world["ids"])[-40:]]
        return self.rng.choice(known + ["0", "-1", "1", "9223372036854775807", "-9223372036854775808", "NULL"])

    def uuid(self):
        dice = self.rng.random()
        known = self.world["receipts"] + ([] if self.superuser else self.world["guarded"])
        if dice < 0.5 and self.receipts:
            return quote(self.rng.choice(self.receipts[-20:]))
        if dice < 0.75 and known:
            return quote(self.rng.choice(known))
        if dice < 0.80 and known:
            bits = int(uuid.UUID(self.rng.choice(known))) ^ (1 << self.rng.randrange(128))
            return quote(str(uuid.UUID(int=bits)))
        if dice < 0.88:
            number = self.rng.choice([0, 1, 2, 3, 63, 65535, 65536, 2 ** 31, 2 ** 32 - 1, self.rng.randrange(70000)])
            data = number.to_bytes(4, "little") + self.rng.getrandbits(96).to_bytes(12, "big")
            data = data[:6] + bytes([data[6] & 0x0F | 0x80, data[7], data[8] & 0x3F | 0x80]) + data[9:]
            return quote(str(uuid.UUID(bytes=data)))
        if dice < 0.95:
            queue = self.name_of_queue()
            return "(SELECT receipt FROM queue.dequeue(%s))" % escaped(queue)
        return self.one("NULL", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "''",
                        "gen_random_uuid()")

    def bytea(self):
        return self.one("''", "'\\x00ff'::pg_catalog.bytea", "'\\x'", "'abc'", "NULL", "decode(fuzz.noise(%d), 'hex')" % BIG,
                        "decode(fuzz.noise(3000), 'hex')", "convert_to(repeat('x', %d), 'UTF8')" % BIG, "'\\xg'")

    def boolean(self):
        return self.one("true", "false", "NULL", "'on'", "''")

    def oid(self):
        return self.rng.choice([str(oid) for oid in self.world["oids"]] + ["0", "1", "1259", "4294967295", "NULL"])

    def array(self, kind):
        draw = self.scalar
        dice = self.rng.random()
        if dice < 0.35:
            return "ARRAY[%s]::pg_catalog.%s[]" % (
                ", ".join(self.typed(draw(kind), kind) for _ in range(self.rng.randrange(1, 5))), kind)
        if dice < 0.45:
            return "ARRAY[%s]::pg_catalog.%s[]" % (", ".join(["NULL", self.typed(draw(kind), kind)] * 2), kind)
        item = self.typed(draw(kind), kind)
        return self.rng.choice([
            "'{}'", "NULL", "'{NULL}'", "ARRAY[]::pg_catalog.%s[]" % kind,
            "ARRAY[ARRAY[%s], ARRAY[%s]]::pg_catalog.%s[]" % (item, item, kind),
            "array_fill(%s, ARRAY[3], ARRAY[5])" % item, "array_fill(%s, ARRAY[2, 2], ARRAY[0, -3])" % item,
            "array_fill(%s, ARRAY[%d])" % (item, self.one(10, 1000, 10000, 10001)),
            "array_fill(NULL::pg_catalog.%s, ARRAY[4], ARRAY[-2147483648])" % kind,
            "(SELECT array_agg(%s) FROM generate_series(1, %d))" % (item, self.one(0, 1, 7, 200))])

    def scalar(self, kind):
        if kind == "text":
            return self.text()
        if kind == "jsonb":
            return self.jsonb()
        if kind in ("int4", "int2"):
            return self.int4()
        if kind in ("regclass", "oid", "regrole"):
            return self.oid()
        if kind == "bool":
            return self.boolean()
        return getattr(self, kind)()

    def typed(self, value, kind):
        """Mostly with its type: then no name of another schema is looked for."""
        if value.startswith("(SELECT"):
            return value
        return "%s::pg_catalog.%s" % (value, kind) if self.chance(0.8) else value

    # What mostly works, so that there is something behind the first check.
    SANE = {
        "text": ["'a'", "'k1'", "fuzz.noise(3000)", "'é'"], "jsonb": ["'{\"a\": 1}'", "'1'", "to_jsonb(fuzz.noise(3000))", "'null'"],
        "int4": ["1", "2", "5", "20"], "interval": ["NULL", "'1 ms'", "'50 ms'", "'1 s'"], "bool": ["true", "false"],
        "timestamptz": ["NULL", "now()", "clock_timestamp() + '10 ms'", "'infinity'"], "bytea": ["'abc'", "decode(fuzz.noise(3000), 'hex')"],
    }

    def sane_value(self, kind, name):
        if kind == "text" and name == "queue":
            known = [queue for queue in self.world["queues"] if not queue.startswith("canary")]
            return escaped(self.rng.choice(known or ["plain"])) + "::pg_catalog.text"
        if name == "side":
            return self.one("'dequeue'", "'enqueue'", "'both'") + "::pg_catalog.text"
        if name in ("priority", "dedup_key", "dedup_keys", "deliver_at", "headers", "keys"):
            return "NULL"
        if name == "options":
            key = self.one("max_attempts", "consumer", "states", "older_than", "segment_size", "backoff", "message_ttl", "lease_timeout")
            return self.one("'{}'", "NULL", escaped(json.dumps({key: LIKELY[key][0]}))) + "::pg_catalog.jsonb"
        if kind == "uuid":
            return quote(self.rng.choice(self.receipts[-3:])) if self.receipts else self.uuid()
        if kind.startswith("_"):
            item = self.sane_value(kind[1:], "")
            return self.one("ARRAY[%s]", "ARRAY[%s]", "array_fill(%s, ARRAY[7])", "array_fill(%s, ARRAY[200])") % self.typed(item, kind[1:])
        if kind in self.SANE:
            return "%s::pg_catalog.%s" % (self.rng.choice(self.SANE[kind]), kind)
        return None

    def value(self, kind, name=""):
        if self.sane and self.chance(0.95):
            value = self.sane_value(kind, name)
            if value is not None:
                return value
        if kind.startswith("_"):
            return self.array(kind[1:])
        if name == "queue" and kind == "text" and self.chance(0.97):
            return self.typed(escaped(self.name_of_queue()), "text")
        if name == "options" and self.chance(0.9):
            return self.typed(self.options(), "jsonb")
        if name in ("headers", "priority", "dedup_key", "dedup_keys", "wait") and self.chance(0.6):
            return "NULL"
        if name == "max_messages" and self.chance(0.7):
            return self.one("1", "2", "5", "50")
        if name == "wait" and self.chance(0.9):
            return self.one("'1 ms'", "'20 ms'")
        return self.typed(self.scalar(kind), kind)

    # ----- a call

    def arguments(self, function):
        given = []
        named = False
        for number, (name, kind) in enumerate(function["arguments"]):
            optional = number >= len(function["arguments"]) - function["defaults"]
            if optional and self.chance(0.6):
                named = True
                continue
            named = named or self.chance(0.1)
            value = self.value(kind, name)
            given.append("%s => %s" % (identifier(name), value) if named and name else value)
        return ", ".join(given)

    def call(self, function=None):
        if function is None:
            weights = [self.weight(function) for function in self.functions]
            function = self.rng.choices(self.functions, weights)[0]
        if function["name"] == "clock_advance" and self.superuser:
            # What was moved stays moved: so a little, or so much that it is refused.
            return "queue.clock_advance(%s)" % self.one(
                "'1 s'", "'10 s'", "'2 min'", "'0'", "'-1 s'", "'1 s', true", "'-1 s', true", "'1000 years'", "NULL", "'1 s', NULL",
                "'-178000000 years', true")
        if function["name"] == "create" and self.chance(0.8):
            return "queue.create(%s, %s)" % (escaped("new%d" % self.rng.randrange(12)), self.value("jsonb", "options"))
        if function["name"] == "_break" and self.superuser:
            return "queue._break('plain', %s)" % self.one("'x'", "NULL", "''")
        return "queue.%s(%s)" % (identifier(function["name"]), self.arguments(function))

    @staticmethod
    def weight(function):
        name = function["name"]
        if name.startswith("_"):
            return 0.4
        if name in ("create", "drop"):
            return 1
        if name in ("health", "check", "clock_advance", "alter", "pause"):
            return 0.6
        return 3 if name in ("enqueue", "dequeue", "enqueue_batch") else 1.5

    def procedure(self, function):
        return "CALL queue.wait(%s)" % self.arguments(function) if self.chance(0.2) else \
            "CALL queue.wait(%s, %s)" % (escaped(self.name_of_queue()), self.one("'1 ms'", "'20 ms'", "NULL", "'-1 s'", "'0'"))

    # ----- a statement around a call

    def statement(self):
        dice = self.rng.random()
        if dice < 0.55:
            return self.around(self.callable())
        if dice < 0.80:
            return self.on_view()
        if dice < 0.86:
            return self.watching()
        if dice < 0.95:
            return self.on_segment()
        return self.setting()

    def notes(self):
        """Where results are kept; what a superuser has seen is not for others."""
        return "fuzz.own" if self.superuser else "fuzz.work"

    def callable(self):
        functions = [function for function in self.functions if function["kind"] != "p"]
        weights = [self.weight(function) for function in functions]
        return self.rng.choices(functions, weights)[0]

    def around(self, function):
        call = self.call(function)
        plain = ["SELECT %s", "SELECT * FROM %s AS f", "SELECT * FROM %s AS f"]
        if self.chance(0.6):
            return self.rng.choice(plain) % call
        select = self.rng.choice(plain) % call
        return self.rng.choice([
            "SELECT count(*) FROM generate_series(1, 3) AS n, LATERAL (SELECT %s) AS f" % call,
            "WITH m AS MATERIALIZED (%s) SELECT * FROM m LIMIT 1" % select,
            "SELECT n FROM generate_series(1, 5) AS n WHERE (%s) IS NOT NULL LIMIT 2" % call,
            "SELECT CASE WHEN EXISTS (%s) THEN 1 END" % select,
            "SELECT 1 ORDER BY %s" % call, "VALUES ((%s)::text), ('x')" % call,
            "SELECT 1 LIMIT (SELECT length((%s)::text))" % call,
            "INSERT INTO %s SELECT 1, f::text FROM %s AS f" % (self.notes(), call),
            "UPDATE %s SET t = (SELECT f::text FROM %s AS f LIMIT 1) WHERE n = 1" % (self.notes(), call),
            "WITH m AS (%s), w AS (INSERT INTO fuzz.work SELECT 1 FROM m RETURNING *) SELECT * FROM w, m" % select,
            "DELETE FROM fuzz.work WHERE (%s) IS NULL" % call,
            "CREATE TEMP TABLE made ON COMMIT DROP AS %s" % select,
            "CREATE MATERIALIZED VIEW pg_temp.made AS %s" % select,
            "CREATE TEMP TABLE IF NOT EXISTS odd (x int DEFAULT length((%s)::text), CHECK (x > 0))" % self.rng.choice(
                ["1", "queue.enqueue('plain', '1')"]),
            "INSERT INTO odd DEFAULT VALUES",
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) %s" % select, "EXPLAIN VERBOSE %s" % select,
            "COPY (%s) TO STDOUT" % select,
            "SELECT fuzz.run(%s)" % escaped(select), "SELECT fuzz.run_stable(%s)" % escaped(select),
            "SELECT fuzz.run_immutable(%s)" % escaped(select), "SELECT fuzz.run_definer(%s)" % escaped(select),
            "SELECT fuzz.first(%s)" % escaped(select),
            "SELECT * FROM fuzz.catch(%s, 3)" % escaped(select),
            "SELECT fuzz.undo(%s, %s)" % (escaped(select), escaped(self.rng.choice(plain) % self.call(self.callable()))),
            "SELECT fuzz.undo(%s, %s)" % (escaped(select), escaped(self.simple())),
            "CALL fuzz.commits(%s, %s)" % (escaped(select), escaped(self.simple())),
            "INSERT INTO fuzz.task VALUES (%s, %s)" % (escaped(select), self.boolean()),
            "SELECT max(fuzz.run_parallel(%s, n)) FROM fuzz.many WHERE n < 5" % escaped(select),
            "SELECT count(*) FROM fuzz.many WHERE t = (%s)::text" % call,
            "DO %s" % escaped("BEGIN PERFORM * FROM %s AS f; COMMIT; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END"
                              % call),
            "DO %s" % escaped("BEGIN PERFORM * FROM %s AS f; COMMIT; CALL queue.wait('plain', '1 ms', NULL); END" % call),
            "SELECT f.*, g.* FROM ROWS FROM (%s, generate_series(1, 3)) AS f, (%s) AS g" % (call, select),
            "SELECT array_agg(f) OVER (), row_to_json(f) FROM %s AS f" % call,
            "PREPARE p%d AS %s" % (self.rng.randrange(3), select), "EXECUTE p%d" % self.rng.randrange(3),
            "EXECUTE p%d" % self.rng.randrange(3), "DEALLOCATE p%d" % self.rng.randrange(3),
        ])

    # ----- views

    def view(self):
        if self.chance(0.08):
            return self.one("fuzz.over_plain", "fuzz.over_plain", "fuzz.over_canary" if not self.superuser else "fuzz.over_plain")
        if self.sane:
            return "queues." + identifier(self.rng.choice([name for name in self.world["queues"] if not name.startswith("canary")] or ["x"]))
        return "queues." + identifier(self.name_of_queue() or "x")

    def condition(self):
        return self.one("id = %s" % self.typed(self.int8(), "int8"), "state = 'ready'", "state = 'leased'", "failures > 0", "true",
                        "payload IS NOT NULL", "id %% 3 = %d" % self.rng.randrange(3), "key = %s" % self.typed(self.text(), "text"),
                        "octet_length(payload::text) > 10000", "1 / (id %% 7) > 0", "false",
                        "id IN (SELECT id FROM queue.dequeue(%s, 3))" % escaped(self.name_of_queue()),
                        "id = (SELECT max(id) FROM %s)" % self.view())

    def columns(self):
        if self.chance(0.7):
            names = ["body"] if self.chance(0.2) else ["payload"]
            return names + self.rng.sample(["key", "headers", "delay", "deliver_at", "ttl", "options"], self.rng.randrange(3))
        return self.rng.sample(COLUMNS, self.rng.randrange(1, 5))

    def row(self, columns):
        return ", ".join("DEFAULT" if self.chance(0.03) else self.value(TYPES.get(name, "text"), name) for name in columns)

    def on_view(self):
        view = self.view()
        dice = self.rng.random()
        if dice < 0.30:
            columns = self.columns()
            rows = ", ".join("(%s)" % self.row(columns) for _ in range(self.one(1, 1, 2, 5)))
            return "INSERT INTO %s (%s) VALUES %s%s" % (view, ", ".join(columns), rows,
                                                        self.one("", "", "", " RETURNING id", " RETURNING *", " ON CONFLICT DO NOTHING"))
        if dice < 0.38:
            return "INSERT INTO %s (payload, key) SELECT to_jsonb(n), n::text FROM generate_series(1, %d) AS n%s" % (
                view, self.one(1, 10, 500), self.one("", " RETURNING state", " RETURNING 1 / (id - 5)"))
        if dice < 0.46:
            return self.copy(view)
        if dice < 0.58:
            return "DELETE FROM %s WHERE %s%s" % (view, self.condition(), self.one("", "", " RETURNING *", " RETURNING payload"))
        if dice < 0.63:
            return "UPDATE %s SET %s = %s WHERE %s" % (view, self.rng.choice(COLUMNS), self.one("DEFAULT", "NULL", "key", "1", "'1'"),
                                                       self.condition())
        if dice < 0.83:
            return self.one(
                "SELECT * FROM %s LIMIT %d" % (view, self.one(0, 1, 10)), "SELECT * FROM %s WHERE %s" % (view, self.condition()),
                "SELECT state, count(*) FROM %s GROUP BY 1" % view, "SELECT a.id FROM %s a, %s b LIMIT 3" % (view, self.view()),
                "SELECT * FROM %s FOR UPDATE LIMIT 1" % view, "TABLE %s" % view, "COPY (SELECT * FROM %s) TO STDOUT" % view,
                "COPY %s TO STDOUT" % view, "SELECT id FROM %s TABLESAMPLE SYSTEM (50)" % view, "SELECT ctid, xmin FROM %s" % view,
                "SELECT v FROM %s AS v ORDER BY id DESC LIMIT 2" % view, "EXPLAIN ANALYZE SELECT * FROM %s" % view,
                "SELECT *, %s FROM %s LIMIT 2" % (self.call(self.callable()), view),
                "SELECT count(*) FROM fuzz.many, (SELECT max(id) FROM %s) AS v" % view)
        name = self.rng.choice(ROLES)
        return self.one(
            "GRANT %s ON %s TO %s" % (self.one("SELECT", "ALL", "UPDATE (key)"), view, name),
            "REVOKE %s ON %s FROM %s" % (self.one("SELECT", "DELETE"), view, name), "COMMENT ON VIEW %s IS 'x'" % view,
            "LOCK TABLE %s IN %s MODE NOWAIT" % (view, self.one("ACCESS SHARE", "SHARE", "ACCESS EXCLUSIVE")),
            "ALTER VIEW %s RENAME TO other" % view, "ALTER VIEW %s SET SCHEMA public" % view, "ALTER VIEW %s OWNER TO %s" % (view, name),
            "ALTER VIEW %s ALTER key SET DEFAULT 'x'" % view, "DROP VIEW %s CASCADE" % view, "DROP VIEW %s" % view,
            "ALTER VIEW %s SET (security_barrier = off)" % view, "ALTER TABLE %s DISABLE TRIGGER ALL" % view,
            "CREATE RULE r AS ON INSERT TO %s DO INSTEAD NOTHING" % view, "DROP RULE \"_RETURN\" ON %s" % view,
            "DROP TRIGGER queue_insert ON %s" % view, "ALTER TRIGGER queue_insert ON %s RENAME TO x" % view,
            "CREATE TRIGGER x INSTEAD OF INSERT ON %s FOR EACH ROW EXECUTE FUNCTION queue._view_insert()" % view,
            "CREATE OR REPLACE VIEW %s AS SELECT 1 AS id" % view, "TRUNCATE %s" % view, "VACUUM %s" % view, "ANALYZE %s" % view,
            "CREATE TEMP VIEW mine AS SELECT * FROM %s" % view, "INSERT INTO mine (payload) VALUES ('1')", "DELETE FROM mine",
            "CREATE OR REPLACE TEMP VIEW other AS SELECT 1 AS id, '1'::pg_catalog.jsonb AS payload",
            "CREATE TRIGGER x INSTEAD OF %s ON pg_temp.other FOR EACH ROW EXECUTE FUNCTION queue._view_%s()" % (
                self.one("INSERT", "DELETE", "UPDATE"), self.one("insert", "delete", "update")),
            "INSERT INTO pg_temp.other VALUES (1, '1')", "DELETE FROM pg_temp.other", "UPDATE pg_temp.other SET id = 2",
            "CREATE TRIGGER x BEFORE INSERT ON odd FOR EACH ROW EXECUTE FUNCTION queue._view_insert()", "DROP TABLE odd",
            "DISCARD TEMP", "MERGE INTO %s AS t USING fuzz.work AS s ON t.id = s.n WHEN MATCHED THEN DELETE" % view)

    def simple(self):
        """Without data beside the statement."""
        while True:
            drawn = self.on_view()
            if isinstance(drawn, str):
                return drawn

    def copy(self, view):
        columns = self.columns()
        good = {"payload": '{"a": 1}', "body": "\\\\x00ff", "key": "k", "headers": "{}", "delay": "1 ms", "deliver_at": "infinity",
                "ttl": "1 s", "options": '{"max_attempts": 2}'}
        rows = []
        for _ in range(self.one(0, 1, 3, 50)):
            rows.append("\t".join(self.rng.choice([good.get(name, "1"), good.get(name, "\\N"), "\\N", "", "x"])
                                  if self.chance(0.08) else good.get(name, "1") for name in columns))
        if self.chance(0.1):
            rows.append(self.one("\\.", "a\tb\tc\td\te\tf\tg", "x" * BIG, "\\N"))
        return "COPY %s (%s) FROM STDIN%s" % (view, ", ".join(columns), self.one("", "", " WHERE true", " (FREEZE)")), \
            "".join(row + "\n" for row in rows)

    def watching(self):
        source = self.rng.choice(self.views + ["queue.health()", "queue.check()", "queue._stats()", "queue._leases()"])
        return self.one("SELECT * FROM %s", "SELECT * FROM %s", "SELECT count(*) FROM %s", "SELECT x.* FROM %s AS x LIMIT 1",
                        "INSERT INTO " + self.notes() + " SELECT 1, x::text FROM %s AS x", "SELECT 1 / count(*) FROM %s WHERE false",
                        "COPY (SELECT * FROM %s) TO STDOUT") % source if self.superuser or self.chance(0.9) else \
            self.one("DELETE FROM %s", "UPDATE %s SET queue = 'x'", "TRUNCATE %s", "DROP VIEW %s", "INSERT INTO %s DEFAULT VALUES") % \
            source.replace("()", "")

    # ----- segments and the catalog

    def segment(self):
        names = [name for name, queue in self.world["segments"]
                 if not (self.superuser and queue.startswith("canary"))]
        return "queues." + identifier(self.rng.choice(names)) if names else "queues.none"

    def on_segment(self):
        segment = self.segment()
        return self.one(
            "SELECT * FROM %s LIMIT 1" % segment, "SELECT count(*) FROM %s" % segment, "DELETE FROM %s" % segment,
            "UPDATE %s SET failures = 0" % segment, "TRUNCATE %s" % segment, "DROP TABLE %s CASCADE" % segment,
            "WITH d AS (DELETE FROM %s RETURNING *) SELECT * FROM d" % segment, "SELECT * FROM %s FOR UPDATE" % segment,
            "ALTER TABLE %s ADD x int" % segment, "ALTER TABLE %s RENAME TO x" % segment, "ALTER TABLE %s SET LOGGED" % segment,
            "ALTER TABLE %s RENAME payload TO x" % segment, "ALTER TABLE %s OWNER TO fuzz_all" % segment,
            "ALTER TABLE %s SET (fillfactor = 10)" % segment, "ALTER TABLE %s ENABLE ROW LEVEL SECURITY" % segment,
            "ALTER TABLE %s SET SCHEMA public" % segment, "ALTER TABLE %s SET TABLESPACE pg_default" % segment,
            "CREATE INDEX ON %s (id)" % segment, "CREATE UNIQUE INDEX CONCURRENTLY ON %s (id)" % segment,
            "CREATE TRIGGER x BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION fuzz.task()" % segment,
            "CREATE RULE r AS ON DELETE TO %s DO INSTEAD NOTHING" % segment, "CREATE POLICY p ON %s" % segment,
            "CREATE TABLE public.child () INHERITS (%s)" % segment, "CREATE STATISTICS ON id, failures FROM %s" % segment,
            "VACUUM %s" % segment, "VACUUM FULL %s" % segment, "VACUUM FREEZE %s" % segment, "ANALYZE %s" % segment,
            "CLUSTER %s" % segment, "REINDEX TABLE %s" % segment, "LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT" % segment,
            "COPY %s TO STDOUT" % segment, "GRANT SELECT ON %s TO PUBLIC" % segment, "REVOKE ALL ON %s FROM fuzz_owner" % segment,
            "COMMENT ON TABLE %s IS 'x'" % segment, "INSERT INTO %s SELECT * FROM %s LIMIT 0" % (segment, self.segment()),
            "MERGE INTO %s AS t USING fuzz.work AS s ON t.id = s.n WHEN MATCHED THEN DELETE" % segment,
            "INSERT INTO %s (id) VALUES (1) ON CONFLICT DO NOTHING" % segment if not self.superuser else "SELECT 1",
            "SELECT pg_relation_size(%s)" % quote(segment), "ALTER SEQUENCE queue.message_id RESTART" if not self.superuser else "SELECT 8",
            "SELECT %s('queue.message_id')" % self.one("nextval", "currval"), "DROP SCHEMA queues CASCADE" if not self.superuser else "SELECT 2",
            "DROP EXTENSION queue CASCADE" if not self.superuser else "SELECT 3", "DROP FUNCTION queue.ack(uuid)", "DROP TYPE queue.message",
            "ALTER EXTENSION queue UPDATE", "ALTER FUNCTION queue.ack(uuid) IMMUTABLE" if not self.superuser else "SELECT 4",
            "CREATE TABLE queues.mine (x int)" if not self.superuser else "SELECT 5", "DROP TABLE queues.mine",
            "DELETE FROM queue._queue" if not self.superuser else "SELECT 6", "INSERT INTO queue._segment VALUES (1, 1, 1)"
            if not self.superuser else "SELECT 7")

    def setting(self):
        if self.chance(0.5):
            name = self.rng.choice(sorted(SETTINGS))
            value = self.rng.choice(SETTINGS[name])
        else:
            name = self.rng.choice(self.world.get("settings", ["queue.max_wait"]))
            value = self.one("0", "1", "-1", "2147483647", "'1kB'", "'10ms'", "'x'", "DEFAULT", "100", "10000", "1e3")
        return self.rng.choice(["SET %s = %s", "SET LOCAL %s = %s", "SET %s = %s"]) % (name, value)

    # ----- sequences

    def unit(self):
        """A list of statements."""
        self.sane = self.chance(0.5)
        dice = self.rng.random()
        if dice < 0.40:
            return [self.statement()]
        if dice < 0.46:
            return [self.procedure(next(function for function in self.functions if function["kind"] == "p"))]
        if dice < 0.56:
            return self.block()
        if dice < 0.68:
            return self.consumer()
        if dice < 0.74:
            return self.cursor()
        if dice < 0.82:
            return self.savepoints()
        if dice < 0.87:
            return self.two_phase()
        if dice < 0.90:
            return self.parallel()
        if dice < 0.95:
            return self.undone()
        return [self.setting()] + [self.statement() for _ in range(3)]

    def begin(self):
        return self.one("BEGIN", "BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE",
                        "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")

    def end(self):
        return self.one("COMMIT", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "ABORT")

    def statements(self, most=4):
        return [self.statement() for _ in range(self.rng.randrange(1, most + 1))]

    def block(self):
        return [self.begin()] + self.statements() + [self.end()]

    def consumer(self):
        """The usual, now and then in an unusual order."""
        queue = self.value("text", "queue")
        take = "SELECT * FROM queue.dequeue(%s, %d, %s)" % (queue, self.one(1, 3, 20), self.one("NULL", "'1 ms'", "'1 s'", "'1 h'"))
        settle = self.one("SELECT queue.ack(%s)", "SELECT queue.nack(%s, 'no')", "SELECT queue.reject(%s, 'never')",
                          "SELECT queue.release(%s)", "SELECT queue.release(%s, '1 s')", "SELECT queue.extend(%s, '1 s')",
                          "SELECT * FROM queue.try_ack(ARRAY[%s]::pg_catalog.uuid[])",
                          "SELECT queue.ack_batch(ARRAY[%s]::pg_catalog.uuid[])",
                          "SELECT * FROM queue.nack_batch(ARRAY[%s]::pg_catalog.uuid[], 'no', '1 ms')")
        put = "SELECT queue.enqueue(%s, to_jsonb(n)) FROM generate_series(1, %d) AS n" % (queue, self.one(1, 5, 300))
        begin = "BEGIN" if self.sane else self.begin()
        end = "COMMIT" if self.sane else self.end()
        parts = [put, begin, take, lambda: settle % self.value("uuid"), lambda: settle % self.value("uuid"), end]
        if self.chance(0.2):
            self.rng.shuffle(parts)
        if self.chance(0.1):
            parts.append("SELECT pg_terminate_backend(pg_backend_pid())")
        return parts

    def cursor(self):
        select = self.one("SELECT * FROM %s AS f" % self.call(self.callable()), "SELECT * FROM %s" % self.view(), self.watching())
        name = "c%d" % self.rng.randrange(2)
        hold = self.chance(0.4)
        parts = [self.begin(), "DECLARE %s %sCURSOR %sFOR %s" % (name, self.one("", "SCROLL ", "BINARY "), "WITH HOLD " if hold else "", select)]
        parts += self.rng.choices(["FETCH 1 FROM %s" % name, "FETCH 2 FROM %s" % name, "MOVE 1 FROM %s" % name,
                                   "FETCH BACKWARD 1 FROM %s" % name, self.simple(), "SAVEPOINT s", "ROLLBACK TO s",
                                   self.around(self.callable()), "CLOSE %s" % name], k=self.rng.randrange(1, 5))
        parts.append(self.end())
        if hold:
            parts += ["FETCH ALL FROM %s" % name, self.one("CLOSE ALL", "CLOSE %s" % name)]
        return parts

    def savepoints(self):
        parts = [self.begin()]
        depth = 0
        for _ in range(self.rng.randrange(2, 9)):
            move = self.one("SAVEPOINT s%d" % depth, "ROLLBACK TO s%d" % max(depth - 1, 0), "RELEASE s%d" % max(depth - 1, 0), None, None)
            if move and move.startswith("SAVEPOINT"):
                depth += 1
            parts.append(move or self.statement())
        return parts + [self.end()]

    def two_phase(self):
        self.prepared += 1
        gid = "%s_%d" % (self.name, self.prepared)
        other = "%s_%d" % (self.name, self.rng.randrange(1, self.prepared + 1))
        queue = self.typed(escaped(self.name_of_queue()), "text")
        inside = [self.statement(), "SELECT * FROM queue.pop(%s, 2)" % queue,
                  "SELECT queue.ack(receipt), queue.enqueue(%s, '1') FROM queue.dequeue(%s, 2)" % (queue, queue),
                  "SELECT * FROM queue.dequeue(%s, 2, '1 h')" % queue, "SELECT queue.purge(%s)" % queue, "SAVEPOINT s", "ROLLBACK TO s"]
        return ["BEGIN"] + self.rng.sample(inside, self.rng.randrange(1, 4)) + ["PREPARE TRANSACTION '%s'" % gid, self.statement(),
                                                                              "%s PREPARED '%s'" % (self.one("COMMIT", "ROLLBACK"), other)]

    def parallel(self):
        name = "force_parallel_mode" if self.major < 16 else "debug_parallel_query"
        return ["BEGIN", "SET LOCAL %s = %s" % (name, self.one("on", "on", "regress")), "SET LOCAL parallel_setup_cost = 0",
                "SET LOCAL min_parallel_table_scan_size = 0"] + self.statements(3) + \
            ["SELECT fuzz.run_parallel(%s, n) FROM fuzz.many WHERE n < 3" % escaped("SELECT " + self.call(self.callable())), self.end()]

    def undone(self):
        """What would leave nothing to fuzz, or break the rules by hand; and it never happened."""
        segment = self.segment()
        hard = [self.one(
            "DROP EXTENSION queue CASCADE", "DROP SCHEMA queues CASCADE", "DROP SCHEMA queue CASCADE", "DROP OWNED BY fuzz_owner CASCADE",
            "REASSIGN OWNED BY fuzz_owner TO fuzz_all", "DELETE FROM queue._queue", "DELETE FROM queue._segment",
            "UPDATE queue._queue SET options = '{\"x\": 1}'", "UPDATE queue._queue SET view = view, dead_letter = NULL",
            "UPDATE queue._queue SET dead_letter = 1259", "TRUNCATE queue._queue, queue._segment",
            "UPDATE queue._segment SET relation = 1259 WHERE number = 1", "UPDATE queue._segment SET queue = queue + 1",
            "UPDATE queue._queue SET options = '[]'", "ALTER TABLE queue._queue DROP COLUMN options",
            "ALTER SEQUENCE queue.message_id MAXVALUE 10 RESTART 9", "DROP SEQUENCE queue.message_id CASCADE", "DROP TABLE queue._segment",
            "ALTER EXTENSION queue DROP FUNCTION queue.ack(uuid)", "ALTER SCHEMA queue RENAME TO q", "ALTER SCHEMA queues RENAME TO qs",
            "CREATE PUBLICATION p FOR ALL TABLES", "REVOKE ALL ON SCHEMA queue, queues FROM PUBLIC",
            "INSERT INTO %s SELECT * FROM %s" % (segment, self.segment()), "CREATE EXTENSION queue", "ALTER EXTENSION queue SET SCHEMA public",
            "ALTER TABLE queue._queue ADD CONSTRAINT x CHECK (false) NOT VALID", "LOCK TABLE queue._queue IN ACCESS EXCLUSIVE MODE NOWAIT",
            "INSERT INTO queue._queue SELECT 99999, 1259, '{}', NULL, NULL, false, false, NULL, now()", "SET CONSTRAINTS ALL IMMEDIATE")]
        return ["BEGIN"] + hard + self.statements(3) + ["ROLLBACK"]
