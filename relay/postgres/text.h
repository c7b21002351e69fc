/*
 * text.h
 *	  Growing strings, JSON, and lines that are fit for a log.
 */
#ifndef POSTGRES_TEXT_H
#define POSTGRES_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Ends with a zero once something was added. All zero is an empty one. */
typedef struct Text
{
	char	   *data;
	size_t		length;
	size_t		size;
	bool		broken;			/* memory ran out: what is in it is not all */
} Text;

extern void text_clear(Text *buffer);
extern void text_free(Text *buffer);
extern void text_add(Text *buffer, const char *bytes, size_t length);
extern void text_add_string(Text *buffer, const char *string);
extern void text_add_json(Text *buffer, const char *string);
extern void text_add_identifier(Text *buffer, const char *name, size_t length);
extern void text_one_line(char *out, size_t size, const char *in, const char *const *secrets);

#endif							/* POSTGRES_TEXT_H */
