/*-------------------------------------------------------------------------
 *
 * receiver.c
 *	  A destination over HTTP/1.1: answers 200 to every request.
 *
 *	receiver [DELAY_MS [LOG]]
 *
 * One thread and epoll, so that it costs as little as can be beside what is
 * measured. Prints its port; how many requests it has answered at each SIGUSR1;
 * and that again at SIGTERM, when it ends. With a delay each answer waits for
 * so long, as many at a time as there are connections. With a log it notes when
 * a request was there, under the first number in its body.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"

#define ROOM (256 * 1024)		/* of a request */
#define EVENTS 256

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

typedef struct Peer
{
	int			socket;			/* -1: gone, but its answer is due yet */
	bool		waits;			/* for its answer */
	bool		told;			/* to go on with this request's body */
	int64_t		due;
	struct Peer *next;			/* to be answered after it */
	size_t		used;
	char		data[ROOM + 1];
} Peer;

static int	epoll;
static int	listener;
static int	signals;
static int	timer;
static int64_t delay;
static FILE *log_file;
static long answered;
static Peer *first_due;			/* all wait equally long: in order */
static Peer *last_due;

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
watch(int descriptor, void *what)
{
	struct epoll_event event = {.events = EPOLLIN,.data.ptr = what};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
		die("epoll_ctl");
}

static void
leave(Peer *peer)
{
	close(peer->socket);
	peer->socket = -1;
	if (!peer->waits)
		free(peer);
}

/* False: the other side is gone. What we say is short: it fits, or nobody reads. */
static bool
tell(Peer *peer, const char *text, size_t length)
{
	return send(peer->socket, text, length, MSG_NOSIGNAL) == (ssize_t) length;
}

static void
set_timer(void)
{
	struct itimerspec time = {.it_value = {first_due->due / 1000000000, first_due->due % 1000000000}};

	timerfd_settime(timer, TFD_TIMER_ABSTIME, &time, NULL);
}

/* Length of the first request in the data: 0, it is not whole yet; -1, it is none. */
static long
measure(Peer *peer, char **body)
{
	char	   *end;
	long		length = 0;

	peer->data[peer->used] = '\0';
	end = strstr(peer->data, "\r\n\r\n");
	if (end == NULL)
		return peer->used == ROOM ? -1 : 0;
	*body = end + 4;
	for (char *line = strstr(peer->data, "\r\n"); line < end; line = strstr(line + 2, "\r\n"))
	{
		if (strncasecmp(line + 2, "content-length:", 15) == 0)
			length = atol(line + 17);
		if (strncasecmp(line + 2, "expect:", 7) == 0 && !peer->told)
		{
			peer->told = true;
			if (!tell(peer, go_on, sizeof(go_on) - 1))
				return -1;
		}
	}
	length += *body - peer->data;
	if (length > ROOM)
		return -1;
	return length <= (long) peer->used ? length : 0;
}

static bool
reply(Peer *peer)
{
	answered++;
	return tell(peer, answer, sizeof(answer) - 1);
}

static void
postpone(Peer *peer)
{
	peer->waits = true;
	peer->due = now_ns() + delay;
	peer->next = NULL;
	if (first_due)
		last_due->next = peer;
	else
		first_due = peer;
	last_due = peer;
	if (first_due == peer)
		set_timer();
}

/* Takes the requests that are there; one behind one that waits for its answer stays. */
static void
work(Peer *peer)
{
	char	   *body;
	long		length;

	while (!peer->waits && peer->used > 0)
	{
		length = measure(peer, &body);
		if (length == 0)
			return;
		if (length < 0)
		{
			leave(peer);
			return;
		}
		if (log_file)
			note(log_file, first_number(body, peer->data + length - body), now_ns());
		memmove(peer->data, peer->data + length, peer->used - length);
		peer->used -= length;
		peer->told = false;
		if (delay)
			postpone(peer);
		else if (!reply(peer))
		{
			leave(peer);
			return;
		}
	}
}

static void
receive(Peer *peer)
{
	ssize_t		n = recv(peer->socket, peer->data + peer->used, ROOM - peer->used, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
	{
		leave(peer);
		return;
	}
	peer->used += n;
	work(peer);
}

static void
answer_due(void)
{
	uint64_t	times;
	int64_t		now = now_ns();

	if (read(timer, &times, sizeof(times)) < 0)
		return;
	while (first_due && first_due->due <= now)
	{
		Peer	   *peer = first_due;

		first_due = peer->next;
		peer->waits = false;
		if (peer->socket < 0)
			free(peer);
		else if (!reply(peer))
			leave(peer);
		else
			work(peer);
	}
	if (first_due)
		set_timer();
}

static void
welcome(void)
{
	int			one = 1;
	int			descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	Peer	   *peer;

	if (descriptor < 0)
		return;
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	peer = malloc(sizeof(Peer));
	if (peer == NULL)
		die("malloc");
	peer->socket = descriptor;
	peer->waits = peer->told = false;
	peer->used = 0;
	watch(descriptor, peer);
}

static void
heed_signal(void)
{
	struct signalfd_siginfo signal;

	if (read(signals, &signal, sizeof(signal)) != sizeof(signal))
		return;
	if (log_file)
		fflush(log_file);
	printf("%ld\n", answered);
	fflush(stdout);
	if (signal.ssi_signo != SIGUSR1)
		exit(0);
}

static void
begin(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	sigset_t	set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (epoll < 0 || signals < 0 || timer < 0 || listener < 0 ||
		bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(listener, 1024) != 0 || getsockname(listener, (struct sockaddr *) &address, &length) != 0)
		die("cannot listen");
	watch(signals, &signals);
	watch(timer, &timer);
	watch(listener, &listener);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];

	delay = argc > 1 ? atoi(argv[1]) * INT64_C(1000000) : 0;
	log_file = argc > 2 ? open_log(argv[2]) : NULL;
	begin();
	for (;;)
	{
		int			n = epoll_wait(epoll, events, EVENTS, -1);

		/* The timer last: what it answers may free a peer that an event is of. */
		for (int i = 0; i < n; i++)
		{
			void	   *what = events[i].data.ptr;

			if (what == &listener)
				welcome();
			else if (what == &signals)
				heed_signal();
			else if (what != &timer)
				receive(what);
		}
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr == &timer)
				answer_due();
	}
}
