/*
 * text.c
 *	  Text that grows, and text that is fit to be shown.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text.h"

static bool
make_room(HttpText *text, size_t length)
{
	size_t		size = text->size ? text->size : 256;
	char	   *data;

	if (text->failed)
		return false;
	while (size - text->used <= length)
		size *= 2;
	if (size == text->size)
		return true;
	data = realloc(text->data, size);
	if (!data)
	{
		text	  ->failed = true;

		return false;
	}
	text	  ->data = data;
	text	  ->size = size;

	return true;
}

void
http_text_add(HttpText *text, const char *bytes, size_t length)
{
	if (!make_room(text, length))
		return;
	memcpy(text->data + text->used, bytes, length);
	text	  ->used += length;
	text	  ->data[text->used] = 0;
}

void
http_text_put(HttpText *text, const char *string)
{
	http_text_add(text, string, strlen(string));
}

/* Percent-encodes the bytes that are not plain. */
void
http_text_encode(HttpText *text, const char *bytes, size_t length, HttpPlain plain)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < length; i++)
	{
		unsigned char byte = bytes[i];
		char		code[3] = {'%', digits[byte >> 4], digits[byte & 15]};

		if (plain(byte))
			http_text_add(text, &bytes[i], 1);
		else
			http_text_add(text, code, 3);
	}
}

/* Keeps the memory. */
void
http_text_clear(HttpText *text)
{
	text	  ->used = 0;
	text	  ->failed = false;
}

void
http_text_free(HttpText *text)
{
	free(text->data);
	*text = (HttpText)
	{
		0
	};
}

/* False: no memory. */
bool
http_hidden_add(HttpHidden *hidden, const char *value)
{
	size_t		length = strlen(value);
	char	   *copy;

	if (length == 0 || hidden->count == HTTP_HIDDEN)
		return length == 0;
	copy = strdup(value);
	if (!copy)
		return false;
	hidden->values[hidden->count++] = copy;
	if (length > hidden->longest)
		hidden->longest = length;
	return true;
}

void
http_hidden_free(HttpHidden *hidden)
{
	for (int i = 0; i < hidden->count; i++)
	{
		explicit_bzero(hidden->values[i], strlen(hidden->values[i]));
		free(hidden->values[i]);
	}
	*hidden = (HttpHidden)
	{
		0
	};
}

/* Length of the longest value that begins here; 0: none does. */
static size_t
hidden_here(const HttpHidden *hidden, const char *bytes, size_t length)
{
	size_t		found = 0;

	for (int i = 0; i < hidden->count; i++)
	{
		size_t		size = strlen(hidden->values[i]);

		if (size <= length && size > found && memcmp(bytes, hidden->values[i], size) == 0)
			found = size;
	}
	return found;
}

/* Length of the UTF-8 character that begins here; 0: none that may be shown. */
static size_t
character_here(const unsigned char *bytes, size_t length)
{
	unsigned char first = bytes[0];
	size_t		size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

	if (size == 1)
		return first >= 0x20 && first != 0x7f;
	if (size == 0 || size > length)
		return 0;
	for (size_t i = 1; i < size; i++)
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
	if ((first == 0xe0 && bytes[1] < 0xa0) || (first == 0xed && bytes[1] > 0x9f) ||
		(first == 0xf0 && bytes[1] < 0x90) || (first == 0xf4 && bytes[1] > 0x8f) ||
		(first == 0xc2 && bytes[1] < 0xa0))
		return 0;
	return size;
}

static bool
is_blank(char byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/*
 * Writes the first "limit" bytes in one line of UTF-8: blanks become one space,
 * what cannot be shown a question mark, hidden values three stars. "bytes" must
 * go on for hidden->longest bytes behind the limit, if there are as many: a
 * value that begins before it is then seen whole.
 */
void
http_text_show(char *line, size_t size, const char *bytes, size_t length, size_t limit,
			   const HttpHidden *hidden)
{
	size_t		used = 0;
	size_t		i = 0;

	while (i < length && i < limit && used + 5 < size)
	{
		size_t		secret = hidden_here(hidden, bytes + i, length - i);
		size_t		whole = character_here((const unsigned char *) bytes + i, length - i);

		if (secret > 0)
		{
			memcpy(line + used, "***", 3);
			used += 3;
			i += secret;
		}
		else if (is_blank(bytes[i]))
		{
			if (used > 0 && line[used - 1] != ' ')
				line[used++] = ' ';
			i++;
		}
		else if (whole > 0)
		{
			memcpy(line + used, bytes + i, whole);
			used += whole;
			i += whole;
		}
		else
		{
			line[used++] = '?';
			i++;
		}
	}
	while (used > 0 && line[used - 1] == ' ')
		used--;
	line[used] = 0;
}
