/*
 * planted.c
 *	  Errors on purpose, one a function: what finds none of them is blind.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(planted_malloc);
PG_FUNCTION_INFO_V1(planted_undefined);
PG_FUNCTION_INFO_V1(planted_palloc);
PG_FUNCTION_INFO_V1(planted_uninitialised);

/* Keeps the compiler from knowing what it is given. */
static volatile int eight = 8;

/* Reads behind a piece of malloc's. */
Datum
planted_malloc(PG_FUNCTION_ARGS)
{
	volatile char *bytes = malloc(eight);
	char		byte = bytes[eight];

	free((void *) bytes);
	PG_RETURN_BOOL(byte == 0);
}

/* Shifts by more than the type has bits. */
Datum
planted_undefined(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL((eight << (eight * 8)) == 0);
}

/* Reads what pfree() took back. */
Datum
planted_palloc(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(eight);

	pfree((void *) bytes);
	PG_RETURN_BOOL(bytes[0] == 0);
}

/* Decides by what nobody has written. */
Datum
planted_uninitialised(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(eight);

	if (bytes[0] == 0)
		elog(DEBUG5, "it was zero");
	PG_RETURN_BOOL(true);
}
