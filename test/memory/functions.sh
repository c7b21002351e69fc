# shellcheck shell=bash
#
# functions.sh
#	  What test/asan and test/valgrind share: a server run by a command, proof
#	  that errors are seen, the reports.
#
# Sourced by bash after lib.sh.

# Makes a folder $1/programs with the server's programs, where postgres is the shell
# command $2, to which "$postgres" is the real one; sets PG_CONFIG to its pg_config.
# The programs are copies: they take postgres from their own folder, and a link
# would lead them back. What initdb runs, runs as ever.
wrap_server()
{
	local to=$1 command=$2 bindir

	bindir=$("$PG_CONFIG" --bindir)
	mkdir -p "$to/programs"
	cp "$bindir"/* "$to/programs/"
	cat >"$to/programs/postgres" <<-END
		#!/bin/bash
		postgres=$bindir/postgres
		case "\${1:-}" in
			--boot | --check | --single | --describe-config | -V | --version) exec "\$postgres" "\$@" ;;
		esac
		$command
	END
	cat >"$to/programs/pg_config" <<-END
		#!/bin/sh
		if [ "\$*" = --bindir ]; then echo $to/programs; else exec $PG_CONFIG "\$@"; fi
	END
	chmod 755 "$to/programs/postgres" "$to/programs/pg_config"
	PG_CONFIG=$to/programs/pg_config
}

# Prints the files in the folder $1 that have a report.
reports_in()
{
	find "$1" -type f -size +0
}

# Runs each planted function named after the folder $1 on a server of its own, and
# counts whether a report in $1/reports names it.
check_planted()
{
	local to=$1 name pgxs
	shift

	pgxs=$("$PG_CONFIG" --pgxs)
	mkdir "$to/planted"
	cp "$here/test/memory/planted.c" "$to/planted/"
	make -C "$to/planted" -s -f "$pgxs" PGXS="$pgxs" PG_CONFIG="$PG_CONFIG" with_llvm=no MODULES=planted \
		>"$to/planted.log" 2>&1 </dev/null || { cat "$to/planted.log"; die "the planted errors were not built"; }
	for name; do
		eval "$("$here/test/server" start "$to/server" -c shared_preload_libraries=)"
		"$PGBIN/psql" -Xq -c "CREATE FUNCTION $name() RETURNS bool LANGUAGE c AS '$to/planted/planted'" \
			-c "SELECT $name()" </dev/null >"$to/planted.out" 2>&1 || true
		"$here/test/server" clean "$to/server"
		if grep -qsF "$name" "$to/reports"/*; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			say "FAILED   $name: the planted error was not reported"
			cat "$to/planted.out"
		fi
		rm -f "$to/reports"/*
	done
	say "$# planted errors, $failed not seen"
}

# Runs parts of the suite, and adds what they counted.
run_suite()
{
	local output=$1 status line
	shift

	"$here/test/run" --pg-config "$PG_CONFIG" "$@" 2>&1 | tee "$output"
	status=${PIPESTATUS[0]}
	line=$(grep -xE '[0-9]+ passed, [0-9]+ failed' "$output" | tail -n 1 || true)
	line=${line:-0 passed, 1 failed}
	line=${line% failed}
	passed=$((passed + ${line%% *}))
	failed=$((failed + ${line##* }))
	[ "$status" = 0 ] || [ "${line##* }" != 0 ] || failed=$((failed + 1))
}

# Each report is a failure, and shown; all of them are left in build/test/reports.
count_reports()
{
	local from=$1 file

	while IFS= read -r file; do
		failed=$((failed + 1))
		say "FAILED   ${file##*/}, first 60 lines:"
		head -n 60 "$file"
		mkdir -p "$here/build/test/reports"
		cp "$file" "$here/build/test/reports/"
	done < <(reports_in "$from" | sort)
}
