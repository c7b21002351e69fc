/*
 * launcher.h
 *	  Finds databases that have the extension, and keeps a worker in each.
 */
#ifndef QUEUE_LAUNCHER_H
#define QUEUE_LAUNCHER_H

#include "shmem.h"

extern const QueueShmemPart queue_launcher_shmem;

extern void queue_launcher_register(void);
extern void queue_launcher_init(void);
extern void queue_launcher_look_at_commit(bool with_extension);
extern void queue_launcher_claim(Oid database);
extern void queue_launcher_leave(Oid database);
extern void queue_launcher_return(Oid database);
extern bool queue_launcher_is_left(Oid database);
extern void queue_launcher_worker_has_no_extension(void);
extern void queue_launcher_worker_works(void);
extern void queue_launcher_pin_settings(void);
extern bool queue_launcher_running(void);

extern PGDLLEXPORT void queue_launcher_main(Datum main_arg);

#endif							/* QUEUE_LAUNCHER_H */
