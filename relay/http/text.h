/*
 * text.h
 *	  Text that grows, and text that is fit to be shown.
 */
#ifndef HTTP_TEXT_H
#define HTTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Ends with a zero once anything was added. When memory runs out it is failed,
 * and stays as it is: one look at the end is enough.
 */
typedef struct HttpText
{
	char	   *data;
	size_t		used;
	size_t		size;
	bool		failed;
} HttpText;

/* Which bytes stand for themselves. */
typedef bool (*HttpPlain) (unsigned char byte);

/* Values that must not be shown, and the longest one's length. */
#define HTTP_HIDDEN 8
typedef struct HttpHidden
{
	char	   *values[HTTP_HIDDEN];
	int			count;
	size_t		longest;
} HttpHidden;

extern void http_text_add(HttpText *text, const char *bytes, size_t length);
extern void http_text_put(HttpText *text, const char *string);
extern void http_text_encode(HttpText *text, const char *bytes, size_t length, HttpPlain plain);
extern void http_text_clear(HttpText *text);
extern void http_text_free(HttpText *text);

extern bool http_hidden_add(HttpHidden *hidden, const char *value);
extern void http_hidden_free(HttpHidden *hidden);

extern void http_text_show(char *line, size_t size, const char *bytes, size_t length, size_t limit,
						   const HttpHidden *hidden);

#endif							/* HTTP_TEXT_H */
