-- setup.sql
--	  What the clients use besides the queues.

CREATE EXTENSION queue;
CREATE SCHEMA stress;

-- The business row of a transaction: there if and only if it committed.
CREATE TABLE stress.mark (x text NOT NULL);

-- Transactions that are counted in the state of a key too, by a name that is in it.
CREATE TABLE stress.counted (state uuid NOT NULL);

CREATE FUNCTION stress.count(receipt uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state jsonb := coalesce(queue.get_key_state(receipt), jsonb_build_object('name', gen_random_uuid(), 'n', 0));
BEGIN
	PERFORM pg_sleep(random() * 0.02);
	PERFORM queue.set_key_state(receipt, jsonb_set(state, '{n}', to_jsonb((state->>'n')::int + 1)));
	INSERT INTO stress.counted VALUES ((state->>'name')::uuid);
END
$$;

-- A row here is a message, enqueued by the statement or at the end of the transaction.
CREATE TABLE stress.told (queue text, payload jsonb, key text);
CREATE TABLE stress.told_late (LIKE stress.told);

CREATE FUNCTION stress.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM queue.enqueue(NEW.queue, NEW.payload, NEW.key);
	RETURN NULL;
END
$$;

CREATE TRIGGER tell AFTER INSERT ON stress.told FOR EACH ROW EXECUTE FUNCTION stress.tell();
CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON stress.told_late DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION stress.tell();

-- Several transactions in one call; those to be kept leave their mark.
CREATE PROCEDURE stress.put(queue text, payloads jsonb[], keys text[], xs text[], keep boolean[]) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. cardinality(payloads) LOOP
		PERFORM queue.enqueue(queue, payloads[i], keys[i]);
		IF keep[i] THEN
			INSERT INTO stress.mark VALUES (xs[i]);
			COMMIT;
		ELSE
			ROLLBACK;
		END IF;
	END LOOP;
END
$$;

CREATE PROCEDURE stress.work(queue text, most int, xs text[], keep boolean[], INOUT answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
	m record;
	rows jsonb;
BEGIN
	answer := '[]';
	FOR i IN 1 .. cardinality(xs) LOOP
		rows := '[]';
		FOR m IN SELECT * FROM queue.dequeue(queue, most, '30 s') LOOP
			rows := rows || jsonb_build_array(jsonb_build_array(m.id,
				coalesce(m.payload->>'tag', split_part(convert_from(m.body, 'UTF8'), '|', 1)),
				left(md5(coalesce(m.payload->>'pad', split_part(convert_from(m.body, 'UTF8'), '|', 2))), 8),
				m.receipt, m.attempt, extract(epoch FROM m.lease_until), extract(epoch FROM m.expires_at), m.key));
			PERFORM queue.ack(m.receipt);
		END LOOP;
		answer := answer || jsonb_build_array(rows);
		IF keep[i] THEN
			INSERT INTO stress.mark VALUES (xs[i]);
			COMMIT;
		ELSE
			ROLLBACK;
		END IF;
	END LOOP;
END
$$;
