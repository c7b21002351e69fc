/*
 * sign.c
 *	  Signatures as of Standard Webhooks, version 1.
 *
 * A signature is "v1," and the base64 of HMAC-SHA256 over id, timestamp and
 * body with dots between; that an id has no dot is what makes it unambiguous. A
 * secret is "whsec_" and the base64 of 24 to 64 bytes.
 */
#include <string.h>

#include <openssl/crypto.h>

#include "sign.h"

#define PREFIX "whsec_"
#define LEAST_KEY 24
#define MOST_KEY 64
/* Of base64, for a key and for a hash. */
#define KEY_TEXT 88
#define HASH_TEXT 44

/* How many bytes a secret has; 0: it is none. */
static int
decode(const char *secret, unsigned char *key)
{
	unsigned char bytes[KEY_TEXT + 4];
	char		again[KEY_TEXT + 4];
	size_t		length;
	int			size;

	if (strncmp(secret, PREFIX, strlen(PREFIX)) != 0)
		return 0;
	secret += strlen(PREFIX);
	length = strlen(secret);
	if (length == 0 || length > KEY_TEXT || length % 4 != 0)
		return 0;
	size = EVP_DecodeBlock(bytes, (const unsigned char *) secret, length);
	size -= (secret[length - 1] == '=') + (secret[length - 2] == '=');
	/* The decoder is lenient: only what encodes to the same text is right. */
	if (size >= LEAST_KEY && size <= MOST_KEY)
	{
		EVP_EncodeBlock((unsigned char *) again, bytes, size);
		if (CRYPTO_memcmp(again, secret, length + 1) != 0)
			size = 0;
		else
			memcpy(key, bytes, size);
	}
	else
		size = 0;
	OPENSSL_cleanse(bytes, sizeof(bytes));
	OPENSSL_cleanse(again, sizeof(again));
	return size;
}

bool
http_sign_is_secret(const char *secret)
{
	unsigned char key[MOST_KEY];
	int			size = decode(secret, key);

	OPENSSL_cleanse(key, sizeof(key));
	return size > 0;
}

/* False: no memory, or no secret. */
bool
http_sign_add_key(HttpSigner *signer, const char *secret)
{
	unsigned char key[MOST_KEY];
	int			size = decode(secret, key);
	EVP_PKEY   *made = NULL;

	if (size > 0 && signer->count < HTTP_KEYS)
		made = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key, size);
	OPENSSL_cleanse(key, sizeof(key));
	if (!made)
		return false;
	signer->keys[signer->count++] = made;
	return true;
}

static bool
hash(EVP_PKEY * key, const char *id, const char *timestamp, const void *body, size_t body_length,
	 unsigned char *value, size_t * size)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		done;

	done = context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestSignUpdate(context, id, strlen(id)) == 1 &&
		EVP_DigestSignUpdate(context, ".", 1) == 1 &&
		EVP_DigestSignUpdate(context, timestamp, strlen(timestamp)) == 1 &&
		EVP_DigestSignUpdate(context, ".", 1) == 1 &&
		(body_length == 0 || EVP_DigestSignUpdate(context, body, body_length) == 1) &&
		EVP_DigestSignFinal(context, value, size) == 1;
	EVP_MD_CTX_free(context);
	return done;
}

/* Adds the signatures of all keys, with spaces between. False: it was not possible. */
bool
http_sign(const HttpSigner *signer, const char *id, const char *timestamp,
		  const void *body, size_t body_length, HttpText *text)
{
	for (int i = 0; i < signer->count; i++)
	{
		unsigned char value[EVP_MAX_MD_SIZE];
		size_t		size = sizeof(value);
		char		encoded[HASH_TEXT + 1];

		if (!hash(signer->keys[i], id, timestamp, body, body_length, value, &size) || size != 32)
			return false;
		EVP_EncodeBlock((unsigned char *) encoded, value, size);
		http_text_put(text, i > 0 ? " v1," : "v1,");
		http_text_put(text, encoded);
	}
	return true;
}

void
http_sign_free(HttpSigner *signer)
{
	for (int i = 0; i < signer->count; i++)
		EVP_PKEY_free(signer->keys[i]);
	*signer = (HttpSigner)
	{
		0
	};
}
