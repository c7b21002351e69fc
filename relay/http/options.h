/*
 * options.h
 *	  What was set of a destination.
 */
#ifndef HTTP_OPTIONS_H
#define HTTP_OPTIONS_H

#include "../sink.h"
#include "guard.h"
#include "sign.h"
#include "text.h"

typedef enum HttpVersion
{
	HTTP_VERSION_AUTO,
	HTTP_VERSION_1,
	HTTP_VERSION_2,
} HttpVersion;

/* NULL: not given. */
typedef struct HttpOptions
{
	char	   *url;			/* with its query */
	char	   *path_url;		/* without query and last slash: targets
								 * follow */
	char	   *query;			/* NULL: none */
	bool		encrypted;		/* https */
	bool		put;
	HttpVersion version;
	int64_t		timeout;		/* ms; 0: the host's */
	long		connect_timeout;	/* ms */
	long		max_connections;
	char	   *ca_file;
	char	   *cert_file;
	char	   *key_file;
	char	   *key_password;
	char	   *proxy;
	char	   *authorization;
	char	   *username;
	char	   *password;
	HttpGuard	guard;
	HttpSigner	signer;
	HttpHidden	hidden;			/* what an answer may repeat */
} HttpOptions;

extern const QueueSinkOption http_options[];

extern int	http_options_check(const QueueSinkSetting * settings, int count, char *error, size_t size);
extern bool http_options_read(HttpOptions *options, const QueueSinkSetting * settings, int count,
							  char *error, size_t size);
extern void http_options_free(HttpOptions *options);

#endif							/* HTTP_OPTIONS_H */
