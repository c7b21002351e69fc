/*
 * touched.h
 *	  Pages that the transaction stored or deleted messages on.
 */
#ifndef QUEUE_TOUCHED_H
#define QUEUE_TOUCHED_H

#include "map.h"

extern void queue_touched_page(QueueSegment *segment, BlockNumber page, QueueTime due);
extern bool queue_touched_any(void);
extern bool queue_touched_lower(QueueTime at);
extern void queue_touched_forget(void);

#endif							/* QUEUE_TOUCHED_H */
