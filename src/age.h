/*
 * age.h
 *	  Ages of segments: vacuumed before autovacuum is forced on them.
 */
#ifndef QUEUE_AGE_H
#define QUEUE_AGE_H

#include "utils/rel.h"

extern bool queue_age_ids_moved(void);
extern bool queue_age_vacuum(Relation rel);

#endif							/* QUEUE_AGE_H */
