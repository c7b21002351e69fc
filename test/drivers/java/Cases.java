import java.io.StringReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/**
 * Calls every kind of function of the extension through the PostgreSQL JDBC driver.
 *
 * Run by test/drivers/run with PORT, DATABASE, ROUTE (direct or pgbouncer) and NAMED (1 where named
 * prepared statements work). Prints a line for each case.
 */
public class Cases {
    static final String ROUTE = System.getenv("ROUTE");
    static final String URL = "jdbc:postgresql://127.0.0.1:" + System.getenv("PORT") + "/"
        + System.getenv("DATABASE") + "?user=app";
    static final UUID UNKNOWN = UUID.fromString("00000000-0000-8000-8000-000000000000");

    record Message(long id, UUID receipt, int attempt, String payload, String lastError, String headers,
                   OffsetDateTime leaseUntil) {}

    interface Body { void run(Cases c) throws Exception; }
    interface Work { void run() throws Exception; }
    static class Undo extends Exception {}

    final String mode, options, queue;
    final Connection conn;

    Cases(String mode, String options, String queue) throws SQLException {
        this.mode = mode;
        this.options = options;
        this.queue = queue;
        this.conn = DriverManager.getConnection(URL + options);
    }

    /** The first column of the first row, or null. A String goes out by setString, and so on. */
    Object value(String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            if (!statement.execute()) {
                return null;
            }
            try (ResultSet row = statement.getResultSet()) {
                return row.next() ? row.getObject(1) : null;
            }
        }
    }

    List<String> strings(String sql, Object... parameters) throws SQLException {
        List<String> result = new ArrayList<>();
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            try (ResultSet row = statement.executeQuery()) {
                while (row.next()) {
                    result.add(row.getString(1));
                }
            }
        }
        return result;
    }

    long enqueue(String payload) throws SQLException {
        return (Long) value("SELECT queue.enqueue(?, ?::jsonb)", queue, payload);
    }

    List<Message> dequeue(int count, String from, double wait) throws SQLException {
        List<Message> messages = new ArrayList<>();
        try (PreparedStatement statement = conn.prepareStatement(
                "SELECT * FROM queue.dequeue(?, ?, wait => make_interval(secs => ?))")) {
            statement.setString(1, from);
            statement.setInt(2, count);
            statement.setDouble(3, wait);
            try (ResultSet row = statement.executeQuery()) {
                while (row.next()) {
                    messages.add(new Message(row.getLong("id"), row.getObject("receipt", UUID.class),
                        row.getInt("attempt"), row.getString("payload"), row.getString("last_error"),
                        row.getString("headers"), row.getObject("lease_until", OffsetDateTime.class)));
                }
            }
        }
        return messages;
    }

    List<Message> dequeue(int count) throws SQLException {
        return dequeue(count, queue, 0);
    }

    Message one(double wait) throws SQLException {
        List<Message> messages = dequeue(1, queue, wait);
        equal(messages.size(), 1);
        return messages.get(0);
    }

    long count(String where) throws SQLException {
        return (Long) value("SELECT count(*) FROM queues.\"" + queue + "\" " + where);
    }

    long worked() throws SQLException {
        return (Long) value("SELECT count(*) FROM work WHERE queue = ?", queue);
    }

    Object uuids(UUID... receipts) throws SQLException {
        return conn.createArrayOf("uuid", receipts);
    }

    void transaction(Work work) throws Exception {
        conn.setAutoCommit(false);
        try {
            work.run();
            conn.commit();
        } catch (Exception error) {
            conn.rollback();
            throw error;
        } finally {
            conn.setAutoCommit(true);
        }
    }

    void undone(Work work) throws Exception {
        try {
            transaction(() -> { work.run(); throw new Undo(); });
        } catch (Undo expected) {
            return;
        }
    }

    void fails(String state, String sql, Object... parameters) {
        try {
            value(sql, parameters);
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) {
                throw new AssertionError("SQLSTATE " + error.getSQLState() + " instead of " + state, error);
            }
            return;
        }
        throw new AssertionError("no error, expected " + state + ": " + sql);
    }

    static void check(boolean truth, String message) {
        if (!truth) {
            throw new AssertionError(message);
        }
    }

    static void equal(Object got, Object wanted) {
        check(Objects.equals(got, wanted), "got " + got + ", wanted " + wanted);
    }

    boolean simple() {
        return options.contains("simple");
    }

    void castsOfTheDocumentation() throws Exception {
        Casts.produce(conn, queue);
        equal(count("WHERE state = 'delayed'"), 2L);
        equal(count("WHERE body IN ('\\x00ff', '\\x01')"), 3L);
        equal(Casts.consume(conn, queue).size(), 8);
        equal(count(""), 2L);
    }

    /** What the table of the documentation calls wrong is wrong, and the remedies beside it are right. */
    void withoutCasts() throws Exception {
        String order = "{\"order_id\": 1}";
        boolean untyped = simple() || options.contains("stringtype=unspecified");
        Object[][] calls = {
            {"SELECT queue.enqueue(?, ?)", queue, order},
            {"SELECT queue.enqueue(?, ?::jsonb, delay => ?)", queue, order, "1 h"},
            {"SELECT * FROM queue.dequeue(?, 1, ?)", queue, "1 s"},
        };
        for (Object[] call : calls) {
            Object[] parameters = java.util.Arrays.copyOfRange(call, 1, call.length);
            if (untyped) {
                value((String) call[0], parameters);
            } else {
                fails("42883", (String) call[0], parameters);
            }
        }
        fails("42883", "SELECT * FROM queue.dequeue(?, ?)", queue, 5L);
        value("SELECT * FROM queue.dequeue(?, ?)", queue, 5);
        fails(untyped ? "QU001" : "42883", "SELECT queue.ack(?)", UNKNOWN.toString());
        fails("QU001", "SELECT queue.ack(?)", UNKNOWN);
        byte[] bytes = {0x00, (byte) 0xff};
        if (!simple()) {            // version 42.5 cannot send bytes in simple mode
            value("SELECT queue.enqueue_bytes(?, ?)", queue, bytes);
            equal(count("WHERE body = '\\x00ff'"), 1L);
        }
    }

    void rolledBack() throws Exception {
        undone(() -> enqueue("{\"n\": 1}"));
        transaction(() -> {
            enqueue("{\"n\": 2}");
            equal(dequeue(1).size(), 0);    // never to the transaction that enqueued it
        });
        List<Message> messages = dequeue(10);
        equal(messages.size(), 1);
        equal(messages.get(0).payload(), "{\"n\": 2}");
    }

    void twentyTimes() throws Exception {
        try (PreparedStatement enqueue = conn.prepareStatement("SELECT queue.enqueue(?, ?::jsonb)");
             PreparedStatement dequeue = conn.prepareStatement("SELECT payload::text, receipt FROM queue.dequeue(?)");
             PreparedStatement ack = conn.prepareStatement("SELECT queue.ack(?)")) {
            for (int n = 0; n < 20; n++) {
                enqueue.setString(1, queue);
                enqueue.setString(2, String.valueOf(n));
                enqueue.execute();
            }
            dequeue.setString(1, queue);
            for (int n = 0; n < 20; n++) {
                try (ResultSet row = dequeue.executeQuery()) {
                    check(row.next(), "message " + n);
                    equal(row.getString(1), String.valueOf(n));
                    ack.setObject(1, row.getObject(2, UUID.class));
                }
                ack.execute();
            }
        }
        equal(count(""), 0L);
    }

    /** addBatch sends the executions in one go. */
    void batchOfStatements() throws Exception {
        transaction(() -> {
            try (PreparedStatement enqueue = conn.prepareStatement(
                    "INSERT INTO queues.\"" + queue + "\" (payload) VALUES (?::jsonb)")) {
                for (int n = 0; n < 10; n++) {
                    enqueue.setString(1, String.valueOf(n));
                    enqueue.addBatch();
                }
                enqueue.executeBatch();
            }
        });
        equal(dequeue(100).size(), 10);
    }

    void ackWithTheWork() throws Exception {
        long sent = enqueue("{\"n\": 1}");
        Message message = one(0);
        equal(message.id(), sent);
        Work work = () -> {
            value("INSERT INTO work VALUES (?, ?)", queue, message.id());
            value("SELECT queue.ack(?)", message.receipt());
        };
        undone(work);
        equal(worked(), 0L);
        equal(dequeue(1).size(), 0);        // the lease outlived the rollback
        transaction(work);
        equal(worked(), 1L);
        equal(count(""), 0L);
    }

    void nackUntilDead() throws Exception {
        value("SELECT queue.alter(?, ?::jsonb)", queue, "{\"max_attempts\": 2}");
        enqueue("{\"n\": 1}");
        equal(value("SELECT queue.nack(?, ?, ?::interval)", one(0).receipt(), "first", "0"), "retry");
        Message message = one(5);
        equal(message.attempt(), 2);
        equal(message.lastError(), "first");
        equal(value("SELECT queue.nack(?, ?)", message.receipt(), "second"), "dead");
        equal(dequeue(1).size(), 0);
        Message dead = dequeue(1, queue + "_dead", 5).get(0);
        equal(dead.payload(), "{\"n\": 1}");
        equal(value("SELECT ?::jsonb -> 'queue.death' ->> 'queue'", dead.headers()), queue);
    }

    void releaseExtendReject() throws Exception {
        enqueue("{\"n\": 1}");
        Message message = one(0);
        value("SELECT queue.extend(?, ?::interval)", message.receipt(), "10 min");
        try (PreparedStatement extend = conn.prepareStatement("SELECT queue.extend(?, make_interval(mins => ?))")) {
            extend.setObject(1, message.receipt());
            extend.setInt(2, 10);
            try (ResultSet row = extend.executeQuery()) {
                row.next();
                check(row.getObject(1, OffsetDateTime.class).isAfter(message.leaseUntil()), "the deadline moved");
            }
        }
        value("SELECT queue.release(?)", message.receipt());
        message = one(5);
        equal(message.attempt(), 1);
        value("SELECT queue.reject(?, ?)", message.receipt(), "no use");
        equal(dequeue(1).size(), 0);
        equal(dequeue(1, queue + "_dead", 5).size(), 1);
    }

    void batchStatuses() throws Exception {
        value("SELECT queue.enqueue_batch(?, ?)", queue, conn.createArrayOf("jsonb", new String[] {"1", "2", "3"}));
        List<Message> messages = dequeue(3);
        Object[][] calls = {{"extend_batch", 0}, {"release_batch", 0}, {"nack_batch", 1}, {"try_ack", 2}};
        for (Object[] call : calls) {
            UUID receipt = messages.get((Integer) call[1]).receipt();
            List<String> statuses = strings("SELECT status FROM queue." + call[0] + "(?)", uuids(receipt, UNKNOWN));
            check(!List.of("lost", "invalid").contains(statuses.get(0)), call[0] + ": " + statuses);
            check(List.of("lost", "invalid").contains(statuses.get(1)), call[0] + ": " + statuses);
        }
        fails("QU001", "SELECT queue.ack_batch(?)", uuids(UNKNOWN));
    }

    void lostLease() throws Exception {
        enqueue("{\"n\": 1}");
        Message message = one(0);
        value("SELECT queue.release(?)", message.receipt());
        undone(() -> {
            value("INSERT INTO work VALUES (?, ?)", queue, message.id());
            fails("QU001", "SELECT queue.ack(?)", message.receipt());
        });
        equal(worked(), 0L);
        fails("QU001", "SELECT queue.nack(?, ?)", message.receipt(), "late");
        fails("QU001", "SELECT queue.extend(?, ?::interval)", message.receipt(), "1 s");
    }

    void otherErrors() throws Exception {
        fails("42704", "SELECT queue.enqueue(?, ?::jsonb)", "no such queue", "{}");
        fails("42710", "SELECT queue.create(?)", queue);
        fails("22023", "SELECT queue.enqueue(?, ?::jsonb, delay => ?::interval)", queue, "{}", "-1 s");
        fails("22023", "SELECT * FROM queue.dequeue(?, ?)", queue, 0);
        fails("22004", "SELECT queue.enqueue(?, ?::jsonb)", queue, null);
    }

    void dequeueWaits() throws Exception {
        Cases other = new Cases(mode, options, queue);
        CompletableFuture<List<Message>> waiting = CompletableFuture.supplyAsync(() -> {
            try {
                return other.dequeue(1, queue, 5);
            } catch (SQLException error) {
                throw new RuntimeException(error);
            }
        });
        enqueue("{\"n\": 1}");
        List<Message> messages = waiting.get();
        other.conn.close();
        equal(messages.size(), 1);
    }

    void callWait() throws Exception {
        equal(dequeue(1).size(), 0);
        equal(value("CALL queue.wait(?, ?::interval)", queue, "0 s"), false);
        enqueue("{\"n\": 1}");
        equal(value("CALL queue.wait(?, ?::interval)", queue, "5 s"), true);
        undone(() -> {
            value("SELECT 1");              // opens the transaction block
            fails("25001", "CALL queue.wait(?, ?::interval)", queue, "1 s");
        });
    }

    void viewAndCopy() throws Exception {
        long sent = (Long) value("INSERT INTO queues.\"" + queue + "\" (payload, key) VALUES (?::jsonb, ?) RETURNING id",
                                 "{\"n\": 0}", "k");
        conn.unwrap(PGConnection.class).getCopyAPI().copyIn(
            "COPY queues.\"" + queue + "\" (payload) FROM STDIN", new StringReader("{\"n\": 1}\n{\"n\": 2}\n"));
        List<Message> messages = dequeue(10);
        equal(messages.size(), 3);
        check(messages.stream().anyMatch(m -> m.id() == sent), "RETURNING id");
    }

    void pop() throws Exception {
        enqueue("{\"n\": 1}");
        undone(() -> check(value("SELECT id FROM queue.pop(?)", queue) != null, "pop gives the message"));
        Message message = one(5);
        equal(message.attempt(), 2);        // the rollback counts as a failure
        value("SELECT queue.ack(?)", message.receipt());
    }

    /** A cursor (setFetchSize) asks for rows in portions; what is leased is leased when it is asked for. */
    void fetchSize() throws Exception {
        for (int n = 0; n < 10; n++) {
            enqueue(String.valueOf(n));
        }
        transaction(() -> {
            try (PreparedStatement statement = conn.prepareStatement("SELECT receipt FROM queue.dequeue(?, 10)")) {
                statement.setFetchSize(3);
                statement.setString(1, queue);
                List<UUID> receipts = new ArrayList<>();
                try (ResultSet row = statement.executeQuery()) {
                    while (row.next()) {
                        receipts.add(row.getObject(1, UUID.class));
                    }
                }
                equal(value("SELECT queue.ack_batch(?)", uuids(receipts.toArray(new UUID[0]))), 10);
            }
        });
        equal(count(""), 0L);
    }

    void listen() throws Exception {
        if (!ROUTE.equals("direct")) {
            return;
        }
        try (Statement statement = conn.createStatement()) {
            statement.execute("LISTEN \"queue_" + queue + "\"");
        }
        Cases other = new Cases(mode, options, queue);
        other.enqueue("{\"n\": 1}");
        other.conn.close();
        PGNotification[] notes = conn.unwrap(PGConnection.class).getNotifications(10000);
        check(notes != null && notes.length > 0, "no notification");
        equal(notes[0].getName(), "queue_" + queue);
        equal(notes[0].getParameter(), queue);
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> modes = new LinkedHashMap<>();
        modes.put("jdbc unnamed", "&prepareThreshold=0");
        modes.put("jdbc simple", "&preferQueryMode=simple");
        modes.put("jdbc stringtype", "&prepareThreshold=0&stringtype=unspecified");
        modes.put("jdbc autosave", "&prepareThreshold=0&autosave=always"); // a savepoint before each statement
        if ("1".equals(System.getenv("NAMED"))) {
            modes.put("jdbc default", "");
            modes.put("jdbc prepared", "&prepareThreshold=1");
        }
        Map<String, Body> cases = new LinkedHashMap<>();
        cases.put("the casts of the documentation", Cases::castsOfTheDocumentation);
        cases.put("without the casts", Cases::withoutCasts);
        cases.put("an enqueue rolled back leaves nothing", Cases::rolledBack);
        cases.put("the same statement twenty times", Cases::twentyTimes);
        cases.put("a batch of statements", Cases::batchOfStatements);
        cases.put("the ack commits with the work", Cases::ackWithTheWork);
        cases.put("nack retries until the message is dead", Cases::nackUntilDead);
        cases.put("release, extend and reject", Cases::releaseExtendReject);
        cases.put("statuses of the batch calls", Cases::batchStatuses);
        cases.put("a lost lease is QU001", Cases::lostLease);
        cases.put("other errors have their SQLSTATE", Cases::otherErrors);
        cases.put("dequeue waits", Cases::dequeueWaits);
        cases.put("CALL queue.wait", Cases::callWait);
        cases.put("INSERT and COPY into the view", Cases::viewAndCopy);
        cases.put("pop", Cases::pop);
        cases.put("a fetch size", Cases::fetchSize);
        cases.put("LISTEN is notified", Cases::listen);

        int failed = 0;
        for (Map.Entry<String, String> mode : modes.entrySet()) {
            int number = 0;
            for (Map.Entry<String, Body> body : cases.entrySet()) {
                String queue = mode.getKey() + " " + ROUTE + " " + number++;
                String label = mode.getKey() + ", " + ROUTE + ": " + body.getKey();
                Cases c = new Cases(mode.getKey(), mode.getValue(), queue);
                try {
                    c.value("SELECT queue.create(?)", queue);
                    body.getValue().run(c);
                    c.value("SELECT queue.drop(?, true)", queue);
                    System.out.println("ok     " + label);
                } catch (Exception | AssertionError error) {
                    failed++;
                    System.out.println("FAILED " + label);
                    error.printStackTrace(System.out);
                } finally {
                    c.conn.close();
                }
            }
        }
        System.exit(failed > 0 ? 1 : 0);
    }
}
