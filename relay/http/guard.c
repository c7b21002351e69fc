/*
 * guard.c
 *	  Which addresses a relay may connect to.
 *
 * Who may create a destination may not therefore reach what only the server can
 * reach: itself, its neighbours, the metadata service of its cloud. What is
 * judged is the address that is being connected to, after name resolution; so it
 * does not matter how it was written, or whether a name has another address now
 * than a moment ago.
 *
 * IPv4 is refused by a list of what is not the internet. IPv6 is refused but for
 * what is: the global unicast addresses less some. An IPv6 address that stands
 * for one of IPv4 (mapped, translated, 6to4) is judged as that one.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"

/* Not the internet, or not with certainty. */
static const char *const refused[] = {
	"0.0.0.0/8",				/* this host */
	"10.0.0.0/8",				/* private */
	"100.64.0.0/10",			/* behind a carrier's NAT */
	"127.0.0.0/8",				/* loopback */
	"168.63.129.16/32",			/* the host of an Azure machine */
	"169.254.0.0/16",			/* link-local, metadata */
	"172.16.0.0/12",			/* private */
	"192.0.0.0/24",				/* protocol assignments */
	"192.0.2.0/24",				/* documentation */
	"192.88.99.0/24",			/* relays of 6to4 */
	"192.168.0.0/16",			/* private */
	"198.18.0.0/15",			/* benchmarks */
	"198.51.100.0/24",			/* documentation */
	"203.0.113.0/24",			/* documentation */
	"224.0.0.0/4",				/* multicast */
	"240.0.0.0/4",				/* reserved, broadcast */
	"2001::/23",				/* protocol assignments, Teredo */
	"2001:db8::/32",			/* documentation */
	"3fff::/20",				/* documentation */
};

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void
map(const uint8_t * address, uint8_t * mapped)
{
	uint8_t		copy[4];

	memcpy(copy, address, 4);
	memcpy(mapped, mapped_prefix, 12);
	memcpy(mapped + 12, copy, 4);
}

static bool
is_mapped(const uint8_t * address)
{
	return memcmp(address, mapped_prefix, 12) == 0;
}

/* Brings the forms of an IPv6 address that stand for one of IPv4 to one. */
static void
unify(uint8_t * address)
{
	static const uint8_t compatible[12] = {0};
	static const uint8_t translated[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0};
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
	static const uint8_t six_to_four[2] = {0x20, 0x02};

	if (memcmp(address, compatible, 12) == 0 || memcmp(address, translated, 12) == 0 ||
		memcmp(address, nat64, 12) == 0)
		map(address + 12, address);
	else if (memcmp(address, six_to_four, 2) == 0)
		map(address + 2, address);
}

static bool
is_within(const uint8_t * address, const HttpNetwork *network)
{
	int			bytes = network->bits / 8;
	int			rest = network->bits % 8;

	if (memcmp(address, network->address, bytes) != 0)
		return false;
	return rest == 0 || ((address[bytes] ^ network->address[bytes]) >> (8 - rest)) == 0;
}

/* True if no bit is set to the right of the mask. */
static bool
is_clean(const HttpNetwork *network)
{
	for (int bit = network->bits; bit < 128; bit++)
		if (network->address[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

/* An address, with "/" and how many bits count, or all. */
static bool
read_network(const char *text, size_t length, HttpNetwork *network)
{
	char		copy[INET6_ADDRSTRLEN + 4];
	char	   *slash;
	int			most = 128;
	int			bits = -1;
	uint8_t		four[4];

	if (length == 0 || length >= sizeof(copy))
		return false;
	memcpy(copy, text, length);
	copy[length] = 0;
	slash = strchr(copy, '/');
	if (slash)
	{
		size_t		digits = strspn(slash + 1, "0123456789");

		if (digits == 0 || digits > 3 || slash[1 + digits] != 0)
			return false;
		bits = atoi(slash + 1);
		*slash = 0;
	}
	if (inet_pton(AF_INET, copy, four) == 1)
	{
		most = 32;
		map(four, network->address);
	}
	else if (inet_pton(AF_INET6, copy, network->address) != 1)
		return false;
	if (bits > most)
		return false;
	network->bits = (bits < 0 ? most : bits) + 128 - most;
	return is_clean(network);
}

/* The next part of a list with commas, without blanks around it; NULL: none. */
static const char *
next_part(const char **list, size_t * length)
{
	const char *begin = *list;
	const char *end;

	if (!begin)
		return NULL;
	end = strchr(begin, ',');
	*list = end ? end + 1 : NULL;
	if (!end)
		end = begin + strlen(begin);
	while (begin < end && *begin == ' ')
		begin++;
	while (end > begin && end[-1] == ' ')
		end--;
	*length = end - begin;
	return begin;
}

bool
http_guard_are_networks(const char *list)
{
	const char *part;
	size_t		length;
	HttpNetwork network;

	while ((part = next_part(&list, &length)) != NULL)
		if (!read_network(part, length, &network))
			return false;
	return true;
}

/* False: no memory, or no list of networks. */
bool
http_guard_allow(HttpGuard *guard, const char *list)
{
	const char *part;
	size_t		length;

	while ((part = next_part(&list, &length)) != NULL)
	{
		HttpNetwork *allowed = realloc(guard->allowed, (guard->count + 1) * sizeof(HttpNetwork));

		if (!allowed)
			return false;
		guard->allowed = allowed;
		if (!read_network(part, length, &allowed[guard->count]))
			return false;
		guard->count++;
	}
	return true;
}

static bool
read_address(const struct sockaddr *address, uint8_t * bytes)
{
	if (address->sa_family == AF_INET)
		map((const uint8_t *) &((const struct sockaddr_in *) address)->sin_addr, bytes);
	else if (address->sa_family == AF_INET6)
		memcpy(bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
	else
		return false;
	return true;
}

/* Public or not: an address of this host reaches what listens here only. */
static bool
is_own(const uint8_t * address)
{
	struct ifaddrs *interfaces;
	uint8_t		own[16];
	bool		found = false;

	if (getifaddrs(&interfaces) != 0)
		return false;
	for (struct ifaddrs *i = interfaces; i && !found; i = i->ifa_next)
		found = i->ifa_addr && read_address(i->ifa_addr, own) && memcmp(own, address, 16) == 0;
	freeifaddrs(interfaces);
	return found;
}

static bool
is_allowed(const HttpGuard *guard, const uint8_t * address)
{
	for (int i = 0; i < guard->count; i++)
		if (is_within(address, &guard->allowed[i]))
			return true;
	return false;
}

static bool
is_refused(const uint8_t * address)
{
	/* 2000::/3 are the global unicast addresses. */
	if (!is_mapped(address) && (address[0] & 0xe0) != 0x20)
		return true;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		HttpNetwork network;

		if (!read_network(refused[i], strlen(refused[i]), &network) || is_within(address, &network))
			return true;
	}
	return is_own(address);
}

/* Whether it may be connected to; its text is written either way. */
bool
http_guard_passes(const HttpGuard *guard, const struct sockaddr *address, char *text, size_t size)
{
	uint8_t		given[16];
	uint8_t		unified[16];

	text[		0] = 0;

	if (!read_address(address, given))
		return false;
	if (is_mapped(given))
		inet_ntop(AF_INET, given + 12, text, size);
	else
		inet_ntop(AF_INET6, given, text, size);
	memcpy(unified, given, 16);
	unify(unified);
	return guard->open || is_allowed(guard, given) || is_allowed(guard, unified) || !is_refused(unified);
}

void
http_guard_free(HttpGuard *guard)
{
	free(guard->allowed);
	*guard = (HttpGuard)
	{
		0
	};
}
