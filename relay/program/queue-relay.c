/*
 * queue-relay.c
 *	  Runs relays of the extension "queue" outside of the server.
 *
 * It does what the server's relay workers do, as a client: for relays with the
 * option runner = program. A process for each relay; a sink that crashes takes
 * nothing with it but that.
 *
 * Secrets of destinations are in the memory of these processes, so they leave
 * no core dumps.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "clock.h"
#include "log.h"
#include "supervisor.h"

#define DEFAULT_DRAIN 10

static const char usage[] =
"queue-relay runs relays of the PostgreSQL extension \"queue\" outside of the server.\n"
"\n"
"Usage:\n"
"  queue-relay [OPTION]... RELAY...\n"
"  queue-relay [OPTION]... --all\n"
"\n"
"Options:\n"
"  -d, --dbname=CONNINFO   connection string, URI, or name of a database\n"
"      --all               all relays with runner = program that the role may run;\n"
"                          looks for new and dropped ones every 10 s\n"
"      --sink-path=DIR     folder with the libraries of sinks (%s)\n"
"      --drain-timeout=S   how long an end waits for what is in flight (%d)\n"
"      --log-level=LEVEL   debug, info or warning (info)\n"
"      --test              try the destinations without a message, and exit;\n"
"                          of relays that nobody runs, and that are not paused\n"
"  -V, --version           show the version, and exit\n"
"  -h, --help              show this, and exit\n"
"\n"
"The role is the relays' owner, or a member of it. What --dbname does not say is taken\n"
"from the environment (PGHOST, PGSERVICE, ...). A password does not belong into an\n"
"argument, which others can see: use a password file (PGPASSFILE), or a service. It\n"
"needs a session of its own: no pooler by transactions between.\n"
"\n"
"SIGTERM and SIGINT take nothing more, wait for what is in flight, and end; a second\n"
"one ends at once. SIGHUP does nothing: changes are picked up by themselves.\n"
"\n"
"Exit status: 0 after such an end, or if all trials went well; 1 if something failed; 2\n"
"if the arguments are wrong.\n";

static const struct option long_options[] = {
	{"dbname", required_argument, NULL, 'd'},
	{"all", no_argument, NULL, 'a'},
	{"sink-path", required_argument, NULL, 's'},
	{"drain-timeout", required_argument, NULL, 'w'},
	{"log-level", required_argument, NULL, 'l'},
	{"test", no_argument, NULL, 't'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0}
};

static bool all;
static bool test;

static void
complain(const char *what)
{
	fprintf(stderr, "queue-relay: %s\nTry \"queue-relay --help\".\n", what);
	exit(2);
}

static int64_t
read_seconds(const char *text)
{
	char	   *end;
	long		seconds = strtol(text, &end, 10);

	if (end == text ||*end != '\0' || seconds < 0 || seconds > 3600)
		complain("--drain-timeout is a number of seconds, from 0 to 3600");
	return seconds * SECOND;
}

static void
read_option(int option, RunnerOptions *options)
{
	switch (option)
	{
		case 'd':
			options->conninfo = optarg;
			break;
		case 'a':
			all = true;
			break;
		case 's':
			options->sink_path = optarg;
			break;
		case 'w':
			options->drain_time = read_seconds(optarg);
			break;
		case 'l':
			if (!log_set_level(optarg))
				complain("--log-level is debug, info or warning");
			break;
		case 't':
			test = true;
			break;
		case 'V':
			printf("queue-relay %s\n", PROGRAM_VERSION);
			exit(0);
		case 'h':
			printf(usage, SINK_PATH, DEFAULT_DRAIN);
			exit(0);
		default:
			complain("the arguments are wrong");
	}
}

static int
test_relays(const RunnerOptions *options, char **relays, int count)
{
	int			status = 0;

	for (int i = 0; i < count; i++)
		status |= runner_test(options, relays[i]);
	return status;
}

int
main(int argc, char **argv)
{
	RunnerOptions options = {.sink_path = SINK_PATH,.drain_time = DEFAULT_DRAIN * SECOND};
	int			option;
	int			count;

	prctl(PR_SET_DUMPABLE, 0);
	while ((option = getopt_long(argc, argv, "d:Vh", long_options, NULL)) != -1)
		read_option(option, &options);
	count = argc - optind;
	for (int i = optind; i < argc; i++)
		if (argv[i][0] == '\0')
			complain("the name of a relay is missing");
	if (all == (count > 0))
		complain(all ? "--all needs no relays" : "which relay?");
	if (test && all)
		complain("--test needs relays");
	if (test)
		return test_relays(&options, argv + optind, count);
	return supervisor_main(&options, argv + optind, count);
}
