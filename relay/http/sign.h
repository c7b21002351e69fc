/*
 * sign.h
 *	  Signatures as of Standard Webhooks, version 1.
 */
#ifndef HTTP_SIGN_H
#define HTTP_SIGN_H

#include <openssl/evp.h>

#include "text.h"

/* A secret and its successor: a receiver that knows either is content. */
#define HTTP_KEYS 2

typedef struct HttpSigner
{
	EVP_PKEY   *keys[HTTP_KEYS];
	int			count;
} HttpSigner;

extern bool http_sign_is_secret(const char *secret);
extern bool http_sign_add_key(HttpSigner *signer, const char *secret);
extern bool http_sign(const HttpSigner *signer, const char *id, const char *timestamp,
					  const void *body, size_t body_length, HttpText *text);
extern void http_sign_free(HttpSigner *signer);

#endif							/* HTTP_SIGN_H */
