/*
 * target.c
 *	  Where a message goes: the address of a request.
 *
 * A target is text that names something below the destination's path, never a
 * URL: whoever writes messages does not choose where they go beyond that. So
 * all of its bytes but slashes are percent-encoded, if they are not letters,
 * digits, or of "-._~", and what a server could read as a way up is refused.
 */
#include <string.h>

#include "target.h"

static bool
is_plain(unsigned char byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
		(byte && strchr("-._~", byte));
}

/* Where it begins: a slash at the start is the one that is there anyway. */
static const char *
begin(const char *target)
{
	return target[0] == '/' ? target + 1 : target;
}

/* What is wrong with a target; NULL: nothing. */
const char *
http_target_fault(const char *target)
{
	if (strstr(target, "://"))
		return "target is a URL";
	if (strchr(target, '\\'))
		return "target has a backslash";
	for (const char *c = target; *c; c++)
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			return "target has a control character";
	for (const char *segment = begin(target); *segment;)
	{
		size_t		length = strcspn(segment, "/");

		if (length == 0)
			return "target has an empty segment";
		if ((length == 1 && segment[0] == '.') || (length == 2 && segment[0] == '.' && segment[1] == '.'))
			return "target has a segment of dots";
		segment += length;
		if (*segment == '/')
			segment++;
	}
	return NULL;
}

/* The address of a target that is not at fault. */
void
http_target_url(const HttpOptions *options, const char *target, HttpText *url)
{
	const char *segment = begin(target);

	http_text_clear(url);
	if (!*segment)
	{
		http_text_put(url, options->url);
		return;
	}
	http_text_put(url, options->path_url);
	http_text_put(url, "/");
	while (*segment)
	{
		size_t		length = strcspn(segment, "/");

		http_text_encode(url, segment, length, is_plain);
		segment += length;
		if (*segment == '/')
		{
			http_text_put(url, "/");
			segment++;
		}
	}
	if (options->query)
	{
		http_text_put(url, "?");
		http_text_put(url, options->query);
	}
}
