# The engine. Sinks, and the program that runs relays, have Makefiles of their own below relay/.

EXTENSION = queue
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" queue.control)
MODULE_big = queue

# In the order of src/LAYERS: it reads as a table of contents.
OBJS = src/shmem.o src/error.o src/clock.o src/guc.o \
	src/acl.o src/limit.o src/options.o src/state.o src/message.o src/catalog.o src/blocked.o src/keystate.o src/dedup.o \
	src/map.o src/priority.o src/touched.o src/key.o src/places.o src/meter.o src/slot.o src/segment.o src/age.o src/ring.o src/place.o src/wakeup.o src/lease.o src/single.o src/delta.o src/pending.o \
	src/visit.o src/order.o src/claim.o src/walk.o src/turn.o src/limited.o src/repeat.o src/enqueue.o src/dequeue.o src/settle.o src/failure.o src/purge.o src/once.o src/rest.o src/peek.o \
	src/pump.o src/text.o src/template.o src/filter.o src/mapping.o src/envelope.o src/library.o src/relay.o src/runner.o src/relaylog.o src/transfer.o \
	src/maintain.o src/launcher.o src/relayworker.o src/worker.o src/guard.o \
	src/adminfuncs.o src/producerfuncs.o src/consumerfuncs.o src/orderfuncs.o src/limitfuncs.o src/relayfuncs.o src/viewfuncs.o src/checkfuncs.o src/queue.o

# The extension's own SQL, concatenated in this order.
SQL_PARTS = $(addprefix sql/extension/, schema.sql types.sql catalog.sql queues.sql \
	producing.sql consuming.sql once.sql relation.sql watching.sql relaying.sql grants.sql)

# For sinks of others.
HEADERS = relay/sink.h

DATA_built = $(EXTENSION)--$(EXTVERSION).sql
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter $(QUEUE_CFLAGS)
EXTRA_CLEAN = $(EXTENSION)--$(EXTVERSION).sql build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
# Bitcode is of no use to a library whose hot paths are its own.
override with_llvm = no
include $(PGXS)

$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS) queue.control
	(printf '%s\n' '\echo Use "CREATE EXTENSION queue" to load this file. \quit'; cat $(SQL_PARTS)) > $@

$(OBJS): $(wildcard $(srcdir)/src/*.h) $(srcdir)/relay/sink.h

# Every folder of relay/ with a Makefile, but for what only tests use. What is built of
# them is installed with the engine.
SINKS = $(filter-out fake harness,$(patsubst $(srcdir)/relay/%/Makefile,%,$(wildcard $(srcdir)/relay/*/Makefile)))

.PHONY: sinks install-sinks clean-sinks
sinks:
	@for sink in $(SINKS); do \
		if missing=$$($(MAKE) -s --no-print-directory -C $(srcdir)/relay/$$sink PG_CONFIG=$(PG_CONFIG) can-build 2>&1); then \
			$(MAKE) --no-print-directory -C $(srcdir)/relay/$$sink PG_CONFIG=$(PG_CONFIG) all || exit; \
		else \
			echo "skipping relay/$$sink: missing $$missing"; \
		fi; \
	done

install-sinks:
	@for sink in $(SINKS); do \
		if [ -n "$$(ls $(srcdir)/relay/$$sink/*.so $(srcdir)/relay/$$sink/queue-relay 2>/dev/null)" ]; then \
			$(MAKE) --no-print-directory -C $(srcdir)/relay/$$sink PG_CONFIG=$(PG_CONFIG) install || exit; \
		fi; \
	done

clean-sinks:
	@for sink in $(SINKS) fake harness; do $(MAKE) -s --no-print-directory -C $(srcdir)/relay/$$sink PG_CONFIG=$(PG_CONFIG) clean; done

install: install-sinks
clean: clean-sinks

.PHONY: test lint format bench
test:
	./test/run --pg-config $(PG_CONFIG)

lint:
	./test/lint

format:
	./test/format

bench:
	./test/bench/run --pg-config $(PG_CONFIG)
