/*
 * message.h
 *	  A message, and its form as a row of a segment.
 */
#ifndef QUEUE_MESSAGE_H
#define QUEUE_MESSAGE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "options.h"

/* Columns of a segment: the fixed-width ones first. */
typedef enum QueueColumn
{
	QUEUE_COLUMN_ID = 1,
	QUEUE_COLUMN_ENQUEUED_AT,
	QUEUE_COLUMN_VISIBLE_AT,
	QUEUE_COLUMN_EXPIRES_AT,
	QUEUE_COLUMN_FIRST_FAILED_AT,
	QUEUE_COLUMN_LAST_FAILED_AT,
	QUEUE_COLUMN_PRIORITY,
	QUEUE_COLUMN_FAILURES,
	QUEUE_COLUMN_MAX_ATTEMPTS,
	QUEUE_COLUMN_COST,
	QUEUE_COLUMN_KEY,
	QUEUE_COLUMN_UNIQUE_KEY,
	QUEUE_COLUMN_HEADERS,
	QUEUE_COLUMN_PAYLOAD,
	QUEUE_COLUMN_BODY,
	QUEUE_COLUMN_ERROR,
} QueueColumn;

#define QUEUE_COLUMNS QUEUE_COLUMN_ERROR

/* The header of a dead letter: how and where it died. */
#define QUEUE_HEADER_DEATH "queue.death"

/* A message in memory: values by column, in a segment's types. */
typedef struct QueueMessage
{
	Datum		values[QUEUE_COLUMNS];
	bool		nulls[QUEUE_COLUMNS];
} QueueMessage;

/* The part that decides on delivery, cheap to read from a page. */
typedef struct QueueMessageHead
{
	int64		id;
	TimestampTz enqueued_at;
	TimestampTz visible_at;		/* DT_NOBEGIN: at once */
	TimestampTz expires_at;		/* DT_NOEND: never */
	int32		failures;
	int32		max_attempts;	/* -1: the queue's */
	bool		is_copy;		/* of an ordered queue: it was stored again */
} QueueMessageHead;

extern void queue_message_init(QueueMessage *message);
extern void queue_message_set(QueueMessage *message, QueueColumn column, Datum value);
extern void queue_message_clear(QueueMessage *message, QueueColumn column);
extern Datum queue_message_get(const QueueMessage *message, QueueColumn column, bool *isnull);
extern void queue_message_set_tuple_id(HeapTuple tuple, int64 id);
extern HeapTuple queue_message_form(const QueueMessage *message, TupleDesc desc);
extern void queue_message_deform(QueueMessage *message, HeapTuple tuple, TupleDesc desc);
extern void queue_message_detoast(QueueMessage *message);
extern int64 queue_message_id(HeapTuple tuple, TupleDesc desc);
extern int	queue_message_priority(const QueueMessage *message);
extern int	queue_message_tuple_priority(HeapTuple tuple, TupleDesc desc);
extern void queue_message_head(QueueMessageHead *head, HeapTuple tuple, TupleDesc desc);
extern uint64 queue_message_hash_key(const char *key, int length);
extern Size queue_message_size(const QueueMessage *message);
extern void queue_message_check(const QueueMessage *message);
extern void queue_message_check_key(const QueueMessage *message);
extern bool queue_message_has_died(const QueueMessage *message);
extern void queue_message_add_header(QueueMessage *message, const char *name, Jsonb *value);
extern const char *queue_message_columns_sql(void);
extern bool queue_message_fits(TupleDesc desc);

#endif							/* QUEUE_MESSAGE_H */
