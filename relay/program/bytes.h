/*
 * bytes.h
 *	  Values in PostgreSQL's binary format.
 */
#ifndef BYTES_H
#define BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An array of one dimension that is being written: elements are appended. */
typedef struct Array
{
	unsigned char *data;
	size_t		used;
	size_t		size;
	int			count;
} Array;

extern void array_begin(Array *array, uint32_t element_type);
extern void array_add(Array *array, const void *value, size_t length);
extern void array_add_int4(Array *array, int32_t value);
extern void array_add_int8(Array *array, int64_t value);
extern void array_add_text(Array *array, const char *text);
extern void array_finish(Array *array);
extern void array_free(Array *array);

#define ARRAY_INT4 23
#define ARRAY_INT8 20
#define ARRAY_TEXT 25
#define ARRAY_UUID 2950

extern int32_t bytes_int4(const char *value);
extern int64_t bytes_int8(const char *value);
extern void bytes_put_int4(char *to, int32_t value);
extern void bytes_put_int8(char *to, int64_t value);
extern const char **bytes_texts(char *value, size_t length, int *count);

extern char *bytes_clean_text(const char *text, bool ascii);

#endif							/* BYTES_H */
