/*
 * options.c
 *	  What can be set of a destination: checks it and reads it.
 *
 * Each value is judged by one rule, alone; only then some of them together. No
 * error has a value in it, so none can have a secret.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "options.h"

#define SERVER QUEUE_SINK_OPTION_SERVER
#define USER QUEUE_SINK_OPTION_USER
#define SECRET QUEUE_SINK_OPTION_SECRET
#define SUPERUSER QUEUE_SINK_OPTION_SUPERUSER
#define READS QUEUE_SINK_OPTION_READS

#define CONNECT_TIMEOUT "3000"
#define MAX_CONNECTIONS "10"

const		QueueSinkOption http_options[] = {
	{"url", SERVER | QUEUE_SINK_OPTION_REQUIRED, NULL,
	"http or https address; the target of a message is appended to its path"},
	{"method", SERVER, "POST", "POST or PUT"},
	{"timeout", SERVER, NULL, "ms that a message may take; at most what the relay allows"},
	{"connect_timeout", SERVER, CONNECT_TIMEOUT,
	"ms that a connection may take to come about: name, TCP and TLS"},
	{"http_version", SERVER, "auto",
	"auto: 2 if an https server offers it; 1.1; 2: also without TLS, and without asking"},
	{"max_connections", SERVER, MAX_CONNECTIONS, "most connections at a time"},
	{"ca_file", SERVER | READS, NULL,
	"certificates that are trusted, PEM; without it those of the operating system"},
	{"cert_file", SERVER | READS, NULL, "certificate of the client, PEM"},
	{"proxy", SERVER | SUPERUSER, NULL,
	"address of a proxy (http, https, socks5, socks5h); it then judges addresses, not the relay"},
	{"allow_private", SERVER | SUPERUSER, "false",
	"true: any address may be connected to, false: only those of the internet"},
	{"allow_networks", SERVER | SUPERUSER, NULL,
	"networks that may be connected to though they are not of the internet: 10.1.0.0/16, ..."},
	{"key_file", USER | READS, NULL, "private key of cert_file, PEM"},
	{"key_password", SECRET, NULL, "password of key_file"},
	{"authorization", SECRET, NULL, "value of the header authorization"},
	{"username", USER, NULL, "user of basic authentication"},
	{"password", SECRET, NULL, "password of basic authentication"},
	{"signing_secret", SECRET, NULL,
	"signs as of Standard Webhooks: whsec_ and base64 of 24 to 64 bytes"},
	{"signing_secret_2", SECRET, NULL, "a second one, while receivers change from one to the other"},
	{NULL, 0, NULL, NULL}
};

/* ---- rules ---- */

/* True if it has only visible characters of ASCII, or blanks too. */
static bool
is_visible(const char *value, bool blanks)
{
	if (!*value)
		return false;
	for (; *value; value++)
		if (*value < (blanks ? ' ' : '!') || *value > '~')
			return false;
	return true;
}

/* libcurl lets one slash or three pass for two. */
static bool
has_host(const char *value)
{
	const char *slashes = strstr(value, ":/");

	return slashes && slashes[2] == '/' && slashes[3] && slashes[3] != '/';
}

static bool
is_url(const char *value)
{
	CURLU	   *url = curl_url();
	char	   *scheme = NULL;
	char	   *fragment = NULL;
	bool		good;

	good = url && is_visible(value, false) && has_host(value) &&
		curl_url_set(url, CURLUPART_URL, value, CURLU_DISALLOW_USER) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		(strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
		curl_url_get(url, CURLUPART_FRAGMENT, &fragment, 0) == CURLUE_NO_FRAGMENT;
	curl_free(scheme);
	curl_free(fragment);
	curl_url_cleanup(url);
	return good;
}

static bool
is_proxy(const char *value)
{
	CURLU	   *url = curl_url();
	char	   *scheme = NULL;
	bool		good;

	good = url && is_visible(value, false) &&
		curl_url_set(url, CURLUPART_URL, value, CURLU_DISALLOW_USER | CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		(strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0 ||
		 strcmp(scheme, "socks5") == 0 || strcmp(scheme, "socks5h") == 0);
	curl_free(scheme);
	curl_url_cleanup(url);
	return good;
}

static bool
is_method(const char *value)
{
	return strcmp(value, "POST") == 0 || strcmp(value, "PUT") == 0;
}

static bool
is_version(const char *value)
{
	return strcmp(value, "auto") == 0 || strcmp(value, "1.1") == 0 || strcmp(value, "2") == 0;
}

static bool
is_boolean(const char *value)
{
	return strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
}

/* The number, or -1 if it is none from 1 on with at most eight digits. */
static long
read_number(const char *value)
{
	size_t		digits = strspn(value, "0123456789");

	if (digits == 0 || digits > 8 || value[digits] != 0 || value[0] == '0')
		return -1;
	return atol(value);
}

static bool
is_time(const char *value)
{
	long		number = read_number(value);

	return number >= 1 && number <= 86400000;
}

static bool
is_count(const char *value)
{
	long		number = read_number(value);

	return number >= 1 && number <= 1000;
}

static bool
is_path(const char *value)
{
	return value[0] == '/';
}

static bool
is_header(const char *value)
{
	return is_visible(value, true) && value[0] != ' ';
}

static bool
has_no_control(const char *value)
{
	for (; *value; value++)
		if ((unsigned char) *value < ' ' || *value == 0x7f)
			return false;
	return true;
}

static bool
is_username(const char *value)
{
	return value[0] && !strchr(value, ':') && has_no_control(value);
}

typedef struct Rule
{
	const char *name;
	bool		(*is_good) (const char *value);
	const char *expected;
} Rule;

static const Rule rules[] = {
	{"url", is_url, "an http or https URL without user, password and fragment"},
	{"method", is_method, "POST or PUT"},
	{"timeout", is_time, "a number of milliseconds from 1 to 86400000"},
	{"connect_timeout", is_time, "a number of milliseconds from 1 to 86400000"},
	{"http_version", is_version, "auto, 1.1 or 2"},
	{"max_connections", is_count, "a number from 1 to 1000"},
	{"ca_file", is_path, "an absolute path"},
	{"cert_file", is_path, "an absolute path"},
	{"key_file", is_path, "an absolute path"},
	{"proxy", is_proxy, "an http, https, socks5 or socks5h URL without user and password"},
	{"allow_private", is_boolean, "true or false"},
	{"allow_networks", http_guard_are_networks,
	"addresses or networks (no bits right of the mask) with commas between"},
	{"authorization", is_header, "the value of a header: visible ASCII characters and blanks"},
	{"username", is_username, "text without colon and control characters"},
	{"password", has_no_control, "text without control characters"},
	{"signing_secret", http_sign_is_secret, "whsec_ and the base64 of 24 to 64 bytes"},
	{"signing_secret_2", http_sign_is_secret, "whsec_ and the base64 of 24 to 64 bytes"},
};

/* ---- check ---- */

static const char *
get(const QueueSinkSetting * settings, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(settings[i].name, name) == 0)
			return settings[i].value;
	return NULL;
}

/* Of two of one user mapping: so both are seen, whatever is checked. */
static bool
check_pairs(const QueueSinkSetting * settings, int count, char *error, size_t size)
{
	static const char *const needs[][2] = {
		{"password", "username"},
		{"signing_secret_2", "signing_secret"},
		{"key_password", "key_file"},
	};

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (get(settings, count, needs[i][0]) && !get(settings, count, needs[i][1]))
		{
			snprintf(error, size, "option \"%s\" needs option \"%s\"", needs[i][0], needs[i][1]);
			return false;
		}
	if (get(settings, count, "authorization") && get(settings, count, "username"))
	{
		snprintf(error, size, "options \"authorization\" and \"username\" exclude each other");
		return false;
	}
	return true;
}

int
http_options_check(const QueueSinkSetting * settings, int count, char *error, size_t size)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
	{
		const char *value = get(settings, count, rules[i].name);

		if (value && !rules[i].is_good(value))
		{
			snprintf(error, size, "option \"%s\" must be %s", rules[i].name, rules[i].expected);
			return -1;
		}
	}
	return check_pairs(settings, count, error, size) ? 0 : -1;
}

/* ---- read ---- */

/* A copy; NULL if it was not given. Clears "good" if there is no memory. */
static char *
copy(const QueueSinkSetting * settings, int count, const char *name, bool *good)
{
	const char *value = get(settings, count, name);
	char	   *made = value ? strdup(value) : NULL;

	if (value && !made)
		*good = false;
	return made;
}

static char *
take(CURLU * url, CURLUPart part, bool *good)
{
	char	   *value = NULL;
	CURLUcode	code = curl_url_get(url, part, &value, 0);
	char	   *made = value ? strdup(value) : NULL;

	if (code == CURLUE_OUT_OF_MEMORY || (value && !made))
		*good = false;
	curl_free(value);
	return made;
}

/* Takes a checked URL apart. False: no memory. */
static bool
read_url(HttpOptions *options, const char *value)
{
	CURLU	   *url = curl_url();
	bool		good = url && curl_url_set(url, CURLUPART_URL, value, 0) == CURLUE_OK;
	size_t		length;

	if (good)
	{
		options->url = take(url, CURLUPART_URL, &good);
		options->query = take(url, CURLUPART_QUERY, &good);
		good = good && curl_url_set(url, CURLUPART_QUERY, NULL, 0) == CURLUE_OK;
		options->path_url = take(url, CURLUPART_URL, &good);
	}
	curl_url_cleanup(url);
	if (!good || !options->url || !options->path_url)
		return false;
	options->encrypted = strncmp(options->url, "https:", 6) == 0;
	length = strlen(options->path_url);
	if (options->path_url[length - 1] == '/')
		options->path_url[length - 1] = 0;
	return true;
}

/* Basic authentication, as the header has it. */
static char *
basic(const char *username, const char *password)
{
	size_t		length = strlen(username) + 1 + strlen(password);
	char	   *pair = malloc(length + 1);
	char	   *value = malloc(6 + 4 * ((length + 2) / 3) + 1);

	if (pair && value)
	{
		sprintf(pair, "%s:%s", username, password);
		memcpy(value, "Basic ", 6);
		EVP_EncodeBlock((unsigned char *) value + 6, (unsigned char *) pair, length);
	}
	else
	{
		free(value);
		value = NULL;
	}
	if (pair)
		explicit_bzero(pair, length);
	free(pair);
	return value;
}

/* The header authorization, and what of it must not be shown. */
static bool
read_credentials(HttpOptions *options)
{
	const char *token;

	if (options->username)
		options->authorization = basic(options->username, options->password ? options->password : "");
	if (options->username && !options->authorization)
		return false;
	if (options->password && !http_hidden_add(&options->hidden, options->password))
		return false;
	if (!options->authorization)
		return true;
	token = strchr(options->authorization, ' ');
	return http_hidden_add(&options->hidden, options->authorization) &&
		(!token || http_hidden_add(&options->hidden, token + strspn(token, " ")));
}

static long
number(const QueueSinkSetting * settings, int count, const char *name, const char *missing)
{
	const char *value = get(settings, count, name);

	return read_number(value ? value : missing);
}

static void
read_choices(HttpOptions *options, const QueueSinkSetting * settings, int count)
{
	const char *method = get(settings, count, "method");
	const char *version = get(settings, count, "http_version");
	const char *private = get(settings, count, "allow_private");

	options->put = method && strcmp(method, "PUT") == 0;
	if (version && strcmp(version, "1.1") == 0)
		options->version = HTTP_VERSION_1;
	else if (version && strcmp(version, "2") == 0)
		options->version = HTTP_VERSION_2;
	if (get(settings, count, "timeout"))
		options->timeout = number(settings, count, "timeout", NULL);
	options->connect_timeout = number(settings, count, "connect_timeout", CONNECT_TIMEOUT);
	options->max_connections = number(settings, count, "max_connections", MAX_CONNECTIONS);
	/* Through a proxy, every connection is to the proxy. */
	options->guard.open = (private && strcmp(private, "true") == 0) || get(settings, count, "proxy");
}

static bool
read_texts(HttpOptions *options, const QueueSinkSetting * settings, int count)
{
	const char *networks = get(settings, count, "allow_networks");
	const char *secret = get(settings, count, "signing_secret");
	const char *secret_2 = get(settings, count, "signing_secret_2");
	bool		good = true;

	options->ca_file = copy(settings, count, "ca_file", &good);
	options->cert_file = copy(settings, count, "cert_file", &good);
	options->key_file = copy(settings, count, "key_file", &good);
	options->key_password = copy(settings, count, "key_password", &good);
	options->proxy = copy(settings, count, "proxy", &good);
	options->authorization = copy(settings, count, "authorization", &good);
	options->username = copy(settings, count, "username", &good);
	options->password = copy(settings, count, "password", &good);
	return good && (!networks || http_guard_allow(&options->guard, networks)) &&
		(!secret || http_sign_add_key(&options->signer, secret)) &&
		(!secret_2 || http_sign_add_key(&options->signer, secret_2)) &&
		read_url(options, get(settings, count, "url")) && read_credentials(options);
}

/* Those of a server and its user mapping together. Free them either way. */
bool
http_options_read(HttpOptions *options, const QueueSinkSetting * settings, int count, char *error, size_t size)
{
	*options = (HttpOptions)
	{
		0
	};
	if (http_options_check(settings, count, error, size) != 0)
		return false;
	if (!get(settings, count, "url"))
	{
		snprintf(error, size, "option \"url\" is missing");
		return false;
	}
	if (get(settings, count, "key_file") && !get(settings, count, "cert_file"))
	{
		snprintf(error, size, "option \"key_file\" needs option \"cert_file\"");
		return false;
	}
	read_choices(options, settings, count);
	if (!read_texts(options, settings, count))
	{
		snprintf(error, size, "out of memory");
		return false;
	}
	return true;
}

static void
forget(char *value)
{
	if (value)
		explicit_bzero(value, strlen(value));
	free(value);
}

void
http_options_free(HttpOptions *options)
{
	free(options->url);
	free(options->path_url);
	free(options->query);
	free(options->ca_file);
	free(options->cert_file);
	free(options->key_file);
	free(options->proxy);
	free(options->username);
	forget(options->key_password);
	forget(options->authorization);
	forget(options->password);
	http_guard_free(&options->guard);
	http_sign_free(&options->signer);
	http_hidden_free(&options->hidden);
	*options = (HttpOptions)
	{
		0
	};
}
