/*
 * text.c
 *	  Growing strings, JSON, and lines that are fit for a log.
 *
 * Nothing here fails at once: a Text whose memory ran out says so in "broken",
 * which its user asks once, at the end.
 */
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
text_clear(Text *buffer)
{
	buffer->length = 0;
	buffer->broken = false;
}

void
text_free(Text *buffer)
{
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

void
text_add(Text *buffer, const char *bytes, size_t length)
{
	if (!buffer->broken && buffer->length + length + 1 > buffer->size)
	{
		size_t		size = (buffer->length + length + 1) * 2;
		char	   *data = realloc(buffer->data, size);

		if (data == NULL)
			buffer->broken = true;
		else
		{
			buffer->data = data;
			buffer->size = size;
		}
	}
	if (buffer->broken)
		return;
	memcpy(buffer->data + buffer->length, bytes, length);
	buffer->length += length;
	buffer->data[buffer->length] = '\0';
}

void
text_add_string(Text *buffer, const char *string)
{
	text_add(buffer, string, strlen(string));
}

/* Adds a JSON string. */
void
text_add_json(Text *buffer, const char *string)
{
	text_add(buffer, "\"", 1);
	for (const char *p = string; *p; p++)
	{
		size_t		plain = 0;
		char		escape[8];

		while ((unsigned char) p[plain] >= 0x20 && p[plain] != '"' && p[plain] != '\\')
			plain++;
		text_add(buffer, p, plain);
		p += plain;
		if (*p == '\0')
			break;
		if (*p == '"' || *p == '\\')
			snprintf(escape, sizeof(escape), "\\%c", *p);
		else
			snprintf(escape, sizeof(escape), "\\u%04x", (unsigned char) *p);
		text_add_string(buffer, escape);
	}
	text_add(buffer, "\"", 1);
}

/* Adds a name as SQL reads it, whatever is in it. */
void
text_add_identifier(Text *buffer, const char *name, size_t length)
{
	text_add(buffer, "\"", 1);
	for (size_t i = 0; i < length; i++)
	{
		if (name[i] == '"')
			text_add(buffer, "\"", 1);
		text_add(buffer, name + i, 1);
	}
	text_add(buffer, "\"", 1);
}

/* Bytes of the character that begins here, 0 if it is no UTF-8. */
static size_t
character(const unsigned char *p)
{
	size_t		length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
		(p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return length;
}

/* Bytes of the longest secret that stands here. */
static size_t
secret_at(const char *in, const char *const *secrets)
{
	size_t		longest = 0;

	for (; *secrets; secrets++)
	{
		size_t		length = strlen(*secrets);

		if (length > longest && strncmp(in, *secrets, length) == 0)
			longest = length;
	}
	return longest;
}

/*
 * Copies as much as fits as one line of UTF-8: blanks and control characters
 * become one blank, what is no UTF-8 a question mark, a secret three stars. The
 * list of secrets ends with NULL.
 */
void
text_one_line(char *out, size_t size, const char *in, const char *const *secrets)
{
	size_t		used = 0;

	while (*in)
	{
		size_t		hidden = secret_at(in, secrets);
		size_t		length = hidden ? hidden : character((const unsigned char *) in);
		const char *copy = hidden ? "***" : length ? in : "?";
		size_t		copied = hidden ? 3 : length ? length : 1;

		if (copied == 1 && ((unsigned char) *copy <= ' ' || *copy == 0x7f))
			copy = used == 0 || out[used - 1] == ' ' ? "" : " ";
		if (*copy != '\0')
		{
			if (used + copied + 1 > size)
				break;
			memcpy(out + used, copy, copied);
			used += copied;
		}
		in += length ? length : 1;
	}
	while (used > 0 && out[used - 1] == ' ')
		used--;
	out[used] = '\0';
}
