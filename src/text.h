/*
 * text.h
 *	  Names, characters and forms that others have rules for.
 */
#ifndef QUEUE_TEXT_H
#define QUEUE_TEXT_H

#include "datatype/timestamp.h"

/* Bytes of a time with its zone, and the zero byte. */
#define QUEUE_TEXT_TIME 48

/* Whether a character may stay as it is; it may look at those behind it. */
typedef bool (*QueueTextStays) (const char *c);

extern bool queue_text_begins(const char *text, int length, const char *prefix);
extern bool queue_text_is_word(const char *text, int length, const char *word);
extern bool queue_text_is_token(const char *text, int length);
extern char *queue_text_fold(const char *name, int length);
extern bool queue_text_is_unreserved(const char *c);
extern bool queue_text_is_uri(const char *c);
extern bool queue_text_is_id(const char *c);
extern char *queue_text_encode(char *text, QueueTextStays stays);
extern char *queue_text_to_utf8(char *text, int length);
extern char *queue_text_shorten(char *line, int limit);
extern bool queue_text_write_time(char *out, TimestampTz time, const char *zone);
extern bool queue_text_is_time(const char *text);
extern char *queue_text_of_sink(const char *utf8);

#endif							/* QUEUE_TEXT_H */
