-- The quickstart's tables: what producers store, and what consumers make of it.

CREATE EXTENSION queue;

CREATE TABLE events (
	number		bigint PRIMARY KEY,		-- the line in the file
	type		text NOT NULL,
	body		jsonb NOT NULL,
	producer	int NOT NULL,
	message		bigint NOT NULL,		-- what queue.enqueue returned
	stored_at	timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- No unique constraint, so that a second result would be seen and not refused.
CREATE TABLE results (
	message		bigint NOT NULL,
	number		bigint NOT NULL,
	digest		text NOT NULL,			-- of the payload, as it was delivered
	consumer	int NOT NULL,
	attempt		int NOT NULL,
	done_at		timestamptz NOT NULL DEFAULT clock_timestamp()
);

SELECT queue.create('events');
