/*
 * bytes.c
 *	  Values in PostgreSQL's binary format: what a statement is given, and what
 *	  it returns.
 *
 * Binary, so that a body is not written out in digits, and a text in an array
 * needs no quotes. Without memory the process ends, as the pump's does.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

/* Number of dimensions, flags, type of elements, length, lower bound. */
#define ARRAY_HEADER 20

/* ---- numbers ---- */

int32_t
bytes_int4(const char *value)
{
	uint32_t	number;

	memcpy(&number, value, 4);
	return (int32_t) ntohl(number);
}

int64_t
bytes_int8(const char *value)
{
	return (int64_t) ((uint64_t) (uint32_t) bytes_int4(value) << 32 | (uint32_t) bytes_int4(value + 4));
}

void
bytes_put_int4(char *to, int32_t value)
{
	uint32_t	number = htonl((uint32_t) value);

	memcpy(to, &number, 4);
}

void
bytes_put_int8(char *to, int64_t value)
{
	bytes_put_int4(to, (int32_t) ((uint64_t) value >> 32));
	bytes_put_int4(to + 4, (int32_t) value);
}

/* ---- arrays, written ---- */

static char *
reserve(Array *array, size_t length)
{
	if (array->used + length > array->size)
	{
		array->size = (array->used + length) * 2;
		array->data = realloc(array->data, array->size);
		if (array->data == NULL)
			abort();
	}
	array->used += length;
	return (char *) array->data + array->used - length;
}

void
array_begin(Array *array, uint32_t element_type)
{
	char	   *header;

	memset(array, 0, sizeof(*array));
	header = reserve(array, ARRAY_HEADER);
	memset(header, 0, ARRAY_HEADER);
	bytes_put_int4(header + 8, (int32_t) element_type);
	bytes_put_int4(header + 16, 1);
}

void
array_add(Array *array, const void *value, size_t length)
{
	char	   *to = reserve(array, 4 + length);

	bytes_put_int4(to, (int32_t) length);
	memcpy(to + 4, value, length);
	array->count++;
}

void
array_add_int4(Array *array, int32_t value)
{
	char		bytes[4];

	bytes_put_int4(bytes, value);
	array_add(array, bytes, sizeof(bytes));
}

void
array_add_int8(Array *array, int64_t value)
{
	char		bytes[8];

	bytes_put_int8(bytes, value);
	array_add(array, bytes, sizeof(bytes));
}

void
array_add_text(Array *array, const char *text)
{
	array_add(array, text, strlen(text));
}

/* One without elements has no dimension. */
void
array_finish(Array *array)
{
	bytes_put_int4((char *) array->data, array->count > 0 ? 1 : 0);
	bytes_put_int4((char *) array->data + 12, array->count);
	if (array->count == 0)
		array->used = 12;
}

void
array_free(Array *array)
{
	free(array->data);
	memset(array, 0, sizeof(*array));
}

/* ---- arrays, read ---- */

/* How many texts an array has; -1: it is no such array. */
static int
count_texts(const char *value, size_t length)
{
	if (length >= 12 && bytes_int4(value) == 0)
		return 0;
	if (length < ARRAY_HEADER || bytes_int4(value) != 1 || bytes_int4(value + 8) != ARRAY_TEXT)
		return -1;
	/* Each has its length before it. */
	if (bytes_int4(value + 12) < 0 || (size_t) bytes_int4(value + 12) > (length - ARRAY_HEADER) / 4)
		return -1;
	return bytes_int4(value + 12);
}

/*
 * Texts of an array without nulls, to be freed; each ends with a zero
 * afterwards, which is written over what follows it in the value, and which
 * libpq has put at its end. NULL: it is no such array.
 */
const char **
bytes_texts(char *value, size_t length, int *count)
{
	char	   *end = value + length;
	char	   *at = value + ARRAY_HEADER;
	char	   *end_of_last = NULL;
	const char **texts;

	*count = count_texts(value, length);
	if (*count < 0)
		return NULL;
	texts = malloc(sizeof(char *) * (*count + 1));
	if (texts == NULL)
		abort();
	for (int i = 0; i < *count; i++)
	{
		int32_t		bytes = end - at >= 4 ? bytes_int4(at) : -1;

		if (bytes < 0 || bytes > end - at - 4)
		{
			free(texts);
			return NULL;
		}
		if (end_of_last)
			*end_of_last = '\0';
		texts[i] = at + 4;
		at += 4 + bytes;
		end_of_last = at;
	}
	return texts;
}

/* ---- text ---- */

/* Bytes of the character at the beginning; 0: it is none of UTF-8. The text ends with a zero. */
static int
character_length(const unsigned char *text)
{
	int			length = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;

	for (int i = 1; i < length; i++)
		if ((text[i] & 0xc0) !=0x80)
			return 0;
	if (length == 3 && ((text[0] == 0xe0 && text[1] < 0xa0) ||(text[0] == 0xed && text[1] > 0x9f)))
		return 0;
	if (length == 4 && ((text[0] == 0xf0 && text[1] < 0x90) ||(text[0] == 0xf4 && text[1] > 0x8f)))
		return 0;
	return length;
}

/*
 * A copy of what a sink has said, which may have cut it anywhere, such that a
 * server takes it; "ascii": one whose encoding may lack the rest.
 */
char *
bytes_clean_text(const char *text, bool ascii)
{
	unsigned char *copy = (unsigned char *) strdup(text);

	if (copy == NULL)
		abort();
	for (unsigned char *at = copy; *at;)
	{
		int			length = character_length(at);

		if (length == 0 || (length > 1 && ascii))
			*at++ = '?';
		else if (*at < ' ')
			*at++ = ' ';
		else
			at += length;
	}
	return (char *) copy;
}
