/*
 * supervisor.c
 *	  The process that has a child for each relay, and starts it again when it
 *	  dies.
 *
 * It does nothing else: connects nowhere, loads nothing, has no threads, so that
 * each fork is a clean beginning. With "--all" one more child asks the database
 * every ten seconds which relays there are, and writes them to a pipe.
 *
 * SIGTERM and SIGINT are passed on as SIGTERM, and the children waited for. They
 * get it too when this process is killed: a relay is never left without somebody
 * who can be asked to end it. SIGHUP does nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "database.h"
#include "log.h"
#include "supervisor.h"

/* Between the end of a process and the next start, doubled until one has run for a while, us. */
#define SHORTEST_PAUSE SECOND
#define LONGEST_PAUSE (60 * SECOND)
#define LONG_RUN (60 * SECOND)

/* Between two lists, us. */
#define LIST_PAUSE (10 * SECOND)

typedef struct Child
{
	struct Child *next;
	char	   *relay;			/* NULL: the one that lists relays */
	pid_t		pid;			/* 0: it does not run */
	int64_t		started_at;
	int64_t		start_at;		/* not before */
	int64_t		pause;
	bool		wanted;
	bool		ending;			/* it was told to */
	volatile	int64_t *epoch; /* shared with the child; survives it */
} Child;

static const RunnerOptions *options;
static Child *children;
static pid_t supervisor_pid;
static sigset_t sleep_mask;

/* Of the list that is being received; -1: there is none. */
static int	list_pipe[2] = {-1, -1};
static char *list;
static size_t list_used;
static size_t list_size;

static volatile sig_atomic_t stop_requests;

/* ---- signals ---- */

static void
request_stop(int signal)
{
	(void) signal;
	stop_requests++;
}

static void
note_child(int signal)
{
	(void) signal;
}

static void
set_signals(void)
{
	struct sigaction stop = {.sa_handler = request_stop};
	struct sigaction child = {.sa_handler = note_child};
	sigset_t	blocked;

	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGCHLD, &child, NULL);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigemptyset(&sleep_mask);
}

/* ---- the child that lists relays ---- */

static void
wait_for_socket(void *context, int socket, short events, int64_t until)
{
	struct pollfd waker = {.fd = socket,.events = events};
	int64_t		left = (until - clock_now()) / 1000;

	(void) context;
	(void) poll(&waker, 1, left < 0 ? 0 : left > 1000 ? 1000 : (int) left);
}

/* Names that end with a zero each, and an empty one at the end. False: nobody reads it any more. */
static bool
write_list(const PGresult * result)
{
	FILE	   *file = fdopen(dup(list_pipe[1]), "w");
	bool		good;

	if (file == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++)
		fwrite(PQgetvalue(result, i, 0), 1, PQgetlength(result, i, 0) + 1, file);
	fputc('\0', file);
	good = fflush(file) == 0;
	fclose(file);
	return good;
}

static int
list_relays(void)
{
	Database	database = {.wait = wait_for_socket};
	DatabaseParameters none = {0};
	bool		told = false;
	PGresult   *result;

	/* It holds nothing: signals may end it anywhere. */
	for (;;)
	{
		result = NULL;
		if (database.connection || database_connect(&database, options->conninfo, "queue-relay"))
			result = database_run(&database, DATABASE_LIST, &none, clock_now() + LIST_PAUSE);
		if (result == NULL && !told)
			log_write(LOG_WARNING, "could not ask which relays there are: %s", database.error);
		told = result == NULL;
		if (result && !write_list(result))
			return 1;
		PQclear(result);
		poll(NULL, 0, (told ? SECOND : LIST_PAUSE) / 1000);
	}
}

/* ---- children ---- */

static Child *
add_child(const char *relay)
{
	Child	   *child = calloc(1, sizeof(Child));

	if (child == NULL)
		abort();
	child->relay = relay ? strdup(relay) : NULL;
	child->epoch = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child->epoch == MAP_FAILED)
		abort();
	child->wanted = true;
	child->next = children;
	children = child;
	return child;
}

static void
forget_child(Child *child)
{
	Child	  **link = &children;

	while (*link != child)
		link = &(*link)->next;
	*link = child->next;
	munmap((void *) child->epoch, sizeof(int64_t));
	free(child->relay);
	free(child);
}

static void
be_child(const Child *child)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != supervisor_pid)
		_exit(0);
	if (list_pipe[0] >= 0)
		close(list_pipe[0]);
	if (child->relay)
	{
		if (list_pipe[1] >= 0)
			close(list_pipe[1]);
		exit(runner_main(options, child->relay, child->epoch));
	}
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_IGN);
	sigprocmask(SIG_SETMASK, &sleep_mask, NULL);
	exit(list_relays());
}

static void
start_child(Child *child)
{
	pid_t		pid = fork();

	if (pid == 0)
		be_child(child);
	child->started_at = clock_now();
	child->pid = pid > 0 ? pid : 0;
	child->ending = false;
	if (pid < 0)
	{
		log_write(LOG_WARNING, "could not start a process: %s", strerror(errno));
		child->start_at = child->started_at + SHORTEST_PAUSE;
	}
}

static void
note_end(Child *child, int status)
{
	int64_t		now = clock_now();
	const char *what = child->relay ? child->relay : "list of relays";

	child->pid = 0;
	if (child->ending || stop_requests)
		return;
	if (now - child->started_at >= LONG_RUN)
		child->pause = 0;
	child->pause = child->pause == 0 ? SHORTEST_PAUSE : child->pause * 2 < LONGEST_PAUSE ? child->pause * 2 : LONGEST_PAUSE;
	child->start_at = now + child->pause;
	if (WIFSIGNALED(status))
		log_write(LOG_WARNING, "the process of \"%s\" was ended by signal %d; the next one starts in %lld s",
				  what, WTERMSIG(status), (long long) (child->pause / SECOND));
	else
		log_write(LOG_WARNING, "the process of \"%s\" has ended with status %d; the next one starts in %lld s",
				  what, WEXITSTATUS(status), (long long) (child->pause / SECOND));
}

static void
reap_children(void)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (Child *child = children; child; child = child->next)
			if (child->pid == pid)
				note_end(child, status);
}

static void
end_child(Child *child)
{
	if (child->pid && !child->ending)
		kill(child->pid, SIGTERM);
	child->ending = true;
}

/* As they are wanted now. Returns when to look again. */
static int64_t
see_to_children(void)
{
	int64_t		now = clock_now();
	int64_t		next = now + 60 * SECOND;

	for (Child *child = children, *after; child; child = after)
	{
		after = child->next;
		if (!child->wanted && child->pid == 0)
			forget_child(child);
		else if (!child->wanted)
			end_child(child);
		else if (child->pid == 0 && now >= child->start_at)
			start_child(child);
		else if (child->pid == 0 && child->start_at < next)
			next = child->start_at;
	}
	return next;
}

/* ---- the list ---- */

static Child *
find_child(const char *relay)
{
	for (Child *child = children; child; child = child->next)
		if (child->relay && strcmp(child->relay, relay) == 0)
			return child;
	return NULL;
}

static void
follow_list(const char *names)
{
	for (Child *child = children; child; child = child->next)
		child->wanted = child->relay == NULL;
	for (const char *name = names; *name; name += strlen(name) + 1)
	{
		Child	   *child = find_child(name);

		if (child == NULL)
			child = add_child(name);
		child->wanted = true;
	}
}

/* The length of a list at the beginning of what was read; 0: it is not complete. */
static size_t
whole_list(void)
{
	size_t		begin = 0;

	for (size_t i = 0; i < list_used; i++)
	{
		if (list[i] != '\0')
			continue;
		if (i == begin)
			return i + 1;
		begin = i + 1;
	}
	return 0;
}

static void
read_list(void)
{
	size_t		length;
	ssize_t		n;

	if (list_size - list_used < 4096)
	{
		list_size = list_size * 2 + 8192;
		list = realloc(list, list_size);
		if (list == NULL)
			abort();
	}
	n = read(list_pipe[0], list + list_used, list_size - list_used);
	if (n <= 0)
		return;
	list_used += n;
	while ((length = whole_list()) > 0)
	{
		follow_list(list);
		list_used -= length;
		memmove(list, list + length, list_used);
	}
}

/* ---- the process ---- */

static void
end_all(void)
{
	for (Child *child = children; child; child = child->next)
		end_child(child);
	for (Child *child = children; child; child = child->next)
	{
		int			requests = stop_requests;

		while (child->pid)
		{
			struct timespec time = {.tv_sec = 1};

			reap_children();
			if (child->pid)
				(void) ppoll(NULL, 0, &time, &sleep_mask);
			/* Whoever asks again wants it now. */
			if (child->pid && stop_requests > requests)
				kill(child->pid, SIGTERM);
			requests = stop_requests;
		}
	}
}

/* Without a relay: all that there are. Returns the status to exit with. */
int
supervisor_main(const RunnerOptions *given, char **relays, int count)
{
	options = given;
	supervisor_pid = getpid();
	set_signals();
	if (count == 0)
	{
		if (pipe2(list_pipe, O_CLOEXEC) != 0 || fcntl(list_pipe[0], F_SETFL, O_NONBLOCK) != 0)
		{
			log_write(LOG_WARNING, "could not make a pipe: %s", strerror(errno));
			return 1;
		}
		add_child(NULL);
	}
	for (int i = 0; i < count; i++)
		if (find_child(relays[i]) == NULL)
			add_child(relays[i]);
	while (stop_requests == 0)
	{
		struct pollfd waker = {.fd = list_pipe[0],.events = POLLIN};
		int64_t		left = see_to_children() - clock_now();
		struct timespec time = {0};

		if (left > 0)
		{
			time.tv_sec = left / SECOND;
			time.tv_nsec = left % SECOND * 1000;
		}
		if (ppoll(&waker, 1, &time, &sleep_mask) > 0)
			read_list();
		reap_children();
	}
	end_all();
	return 0;
}
