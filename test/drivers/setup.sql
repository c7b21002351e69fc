-- What the programs of test/drivers work on: a role without privileges of its own, the table of the
-- cases, and the shipments of the consumers with a trigger that stands for the troubles of real work.
CREATE ROLE app LOGIN;
CREATE EXTENSION queue;
GRANT CREATE ON SCHEMA queues TO app;

CREATE TABLE work (queue text, message_id bigint);
CREATE TABLE shipments (order_id bigint, message_id bigint, attempt int);
CREATE TABLE faults (order_id bigint PRIMARY KEY, kind text);
GRANT SELECT, INSERT ON work TO app;
GRANT INSERT ON shipments TO app;
GRANT SELECT ON faults TO app;

CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	kind text := (SELECT f.kind FROM faults f WHERE f.order_id = NEW.order_id);
BEGIN
	IF kind = 'always' OR kind = 'first' AND NEW.attempt = 1 THEN
		RAISE 'no way to ship order %', NEW.order_id;
	ELSIF kind = 'slow' THEN
		PERFORM pg_sleep(5);			-- longer than two leases: the heartbeat keeps it
	ELSIF kind = 'gate' THEN
		PERFORM pg_advisory_xact_lock(4711);
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER trouble BEFORE INSERT ON shipments FOR EACH ROW EXECUTE FUNCTION trouble();
