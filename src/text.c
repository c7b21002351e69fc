/*
 * text.c
 *	  Names, characters and forms that others have rules for: HTTP, URIs, RFC 3339.
 *
 * All of these rules are about ASCII, so they hold in every encoding of a
 * database; bytes of other characters are never mistaken for it, for the
 * encodings of servers keep them above. Nothing here looks at a locale.
 *
 * Text that comes with a length need not be terminated. What is returned may be
 * the text that was given.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "text.h"

bool
queue_text_begins(const char *text, int length, const char *prefix)
{
	return length >= (int) strlen(prefix) && strncmp(text, prefix, strlen(prefix)) == 0;
}

bool
queue_text_is_word(const char *text, int length, const char *word)
{
	return length == (int) strlen(word) && queue_text_begins(text, length, word);
}

static bool
is_letter_or_digit(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* What HTTP allows in the name of a header. */
bool
queue_text_is_token(const char *text, int length)
{
	for (int i = 0; i < length; i++)
		if (!is_letter_or_digit(text[i]) && (text[i] == '\0' || !strchr("!#$%&'*+-.^_`|~", text[i])))
			return false;
	return length > 0;
}

/* Copy the name of a header in lower case; it is ASCII. */
char *
queue_text_fold(const char *name, int length)
{
	char	   *folded = pnstrdup(name, length);

	for (char *c = folded; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c += 'a' - 'A';
	return folded;
}

/* What no part of a URI gives a meaning to. */
bool
queue_text_is_unreserved(const char *c)
{
	return is_letter_or_digit(*c) || *c == '-' || *c == '.' || *c == '_' || *c == '~';
}

static bool
is_hex_digit(char c)
{
	return c != '\0' && strchr("0123456789abcdefABCDEF", c);
}

/* Whether it may be in a URI reference. */
bool
queue_text_is_uri(const char *c)
{
	if (*c == '%')
		return is_hex_digit(c[1]) && is_hex_digit(c[2]);
	return queue_text_is_unreserved(c) || (*c != '\0' && strchr(":/?#[]@!$&'()*+,;=", *c));
}

/* In the id that sinks get there is no blank and no dot. */
bool
queue_text_is_id(const char *c)
{
	return *c > ' ' && *c < 0x7f && *c != '.' && *c != '%';
}

/* The text itself when it is made of such characters alone, else a copy with %XX for others. */
char *
queue_text_encode(char *text, QueueTextStays stays)
{
	StringInfoData encoded;
	char	   *c = text;

	while (*c && stays(c))
		c++;
	if (*c == '\0')
		return text;
	initStringInfo(&encoded);
	for (c = text; *c; c++)
		if (stays(c))
			appendStringInfoChar(&encoded, *c);
		else
			appendStringInfo(&encoded, "%%%02X", (unsigned char) *c);
	return encoded.data;
}

/* The text itself in most databases. */
char *
queue_text_to_utf8(char *text, int length)
{
	return pg_server_to_any(text, length, PG_UTF8);
}

/* Cut it to so many bytes, in one line. */
char *
queue_text_shorten(char *line, int limit)
{
	line[pg_mbcliplen(line, strlen(line), limit)] = '\0';
	for (char *c = line; *c; c++)
		if ((unsigned char) *c < ' ')
			*c = ' ';
	return line;
}

/* In UTC, as RFC 3339 has it; false: it is no time of a year with four digits. */
bool
queue_text_write_time(char *out, TimestampTz time, const char *zone)
{
	struct pg_tm tm;
	fsec_t		usecs;

	if (TIMESTAMP_NOT_FINITE(time) || timestamp2tm(time, NULL, &tm, &usecs, NULL, NULL) != 0 ||
		tm.tm_year < 0 || tm.tm_year > 9999)
		return false;
	out = pg_ultostr_zeropad(out, tm.tm_year, 4);
	*out++ = '-';
	out = pg_ultostr_zeropad(out, tm.tm_mon, 2);
	*out++ = '-';
	out = pg_ultostr_zeropad(out, tm.tm_mday, 2);
	*out++ = 'T';
	out = pg_ultostr_zeropad(out, tm.tm_hour, 2);
	*out++ = ':';
	out = pg_ultostr_zeropad(out, tm.tm_min, 2);
	*out++ = ':';
	out = pg_ultostr_zeropad(out, tm.tm_sec, 2);
	*out++ = '.';
	out = pg_ultostr_zeropad(out, usecs, 6);
	strcpy(out, zone);
	return true;
}

/* Whether text is a time as RFC 3339 has it, by its form. */
bool
queue_text_is_time(const char *text)
{
	static const char form[] = "0000-00-00T00:00:00";
	const char *c = text;

	for (const char *f = form; *f; f++, c++)
		if (*f == '0' ? !(*c >= '0' && *c <= '9') : *c != *f)
			return false;
	if (*c == '.')
	{
		size_t		digits = strspn(c + 1, "0123456789");

		if (digits == 0)
			return false;
		c += 1 + digits;
	}
	if (*c == 'Z')
		return c[1] == '\0';
	return (*c == '+' || *c == '-') && strspn(c + 1, "0123456789") == 2 && c[3] == ':' &&
		strspn(c + 4, "0123456789") == 2 && c[6] == '\0';
}

/* Text of a sink, which may have cut it anywhere, in the server's encoding. */
char *
queue_text_of_sink(const char *utf8)
{
	char	   *text = pstrdup(utf8);
	int			length = strlen(text);
	int			good;

	while ((good = pg_encoding_verifymbstr(PG_UTF8, text, length)) < length)
		text[good] = '?';
	for (int i = 0; i < length; i++)
		if ((unsigned char) text[i] < ' ')
			text[i] = ' ';
	if (GetDatabaseEncoding() == PG_UTF8)
		return text;
	/* What the server's encoding lacks must not be an error. */
	for (int i = 0; i < length; i++)
		if (IS_HIGHBIT_SET(text[i]))
			text[i] = '?';
	return text;
}
