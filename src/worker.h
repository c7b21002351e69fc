/*
 * worker.h
 *	  The process that works for one database.
 */
#ifndef QUEUE_WORKER_H
#define QUEUE_WORKER_H

extern PGDLLEXPORT void queue_worker_main(Datum main_arg);

#endif							/* QUEUE_WORKER_H */
