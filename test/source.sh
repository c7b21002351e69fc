# shellcheck shell=bash
#
# source.sh
#	  Servers of our own, built from Debian's source package of PostgreSQL.
#
# Sourced by bash after lib.sh. Debian's patches give the server the setting
# extension_destdir, so that test/run can use it like a packaged one. They also
# point the installation at /usr: as root all of it is done by the unprivileged
# user, so that a build that misses one of these places fails instead of
# replacing files of the packages.

# apt with lists of its own, so that the system's sources stay as they are.
source_apt()
{
	apt-get -q -o Dir::Etc::SourceList="$cache/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$cache/lists" -o Dir::Cache="$cache/apt" \
		-o APT::Sandbox::User= "$@" </dev/null
}

# The sources beside the binary packages that this system uses from Debian.
write_sources()
{
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		sed -n 's/^Debian /deb-src [signed-by=\/usr\/share\/keyrings\/debian-archive-keyring.gpg] /p' |
		sort -u | sed 's/$/ main/' >"$cache/sources.list"
	[ -s "$cache/sources.list" ] || die "found no Debian mirror in apt's configuration"
}

# Downloads the newest source that the mirror has: the security pool keeps the
# binaries of a version longer than its source.
download()
{
	local version

	mkdir -p "$cache/lists/partial" "$cache/apt/archives/partial"
	write_sources
	source_apt update && cd "$cache" || return
	for version in $(apt-cache -o Dir::Etc::SourceList="$cache/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$cache/lists" -o Dir::Cache="$cache/apt" \
		showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -rV | uniq); do
		rm -rf ./postgresql-"$major"[-_]*
		if source_apt source "postgresql-$major=$version"; then
			return
		fi
	done
	return 1
}

# Debian has the libraries in a place of its own that no option of configure
# and make changes.
# shellcheck disable=SC2016
build()
{
	cd "$cache"/postgresql-"$major"-*/ &&
		sed -i 's|/usr/lib/postgresql/@PG_MAJORVERSION@/lib|$(libdir)/postgresql|' src/Makefile.global.in &&
		./configure -q --prefix="$prefix" --enable-cassert --enable-debug --enable-tap-tests \
			--without-icu --without-readline --without-zlib \
			CFLAGS='-O1 -ggdb -fno-omit-frame-pointer' CPPFLAGS="$cppflags" &&
		make -s -j"$(nproc)" && make -s install &&
		make -s -j"$(nproc)" -C contrib && make -s -C contrib install &&
		cp src/tools/valgrind.supp "$prefix/"
}

# Sets prefix to a server of major $2 in the folder $1, built with assertions at
# -O1 (which brings CLOBBER_FREED_MEMORY and MEMORY_CONTEXT_CHECKING with it)
# and the preprocessor's flags $3; builds it if it is not there. A folder holds
# one server of each major; its source stays beside it, for debuggers.
own_server()
{
	cache=$1
	major=$2
	cppflags=${3:-}
	prefix=$cache/pg$major
	[ ! -e "$prefix/.complete" ] || return 0

	install_packages gcc make perl bison flex dpkg-dev libipc-run-perl debian-archive-keyring
	mkdir -p "$cache"
	chmod 755 "$cache"
	say "building PostgreSQL $major with assertions in $cache"
	rm -rf "$prefix"
	! am_root || chown -R "$QUEUE_USER" "$cache"
	export cache major cppflags prefix
	export -f source_apt write_sources download build die
	if ! (cd "$cache" && as_user nice -n 19 bash -c 'download && build' >"$cache/build.log" 2>&1 </dev/null); then
		tail -n 25 "$cache/build.log" >&2
		die "the build failed; all of it is in $cache/build.log"
	fi
	rm -rf "$cache/lists" "$cache/apt" "$cache"/postgresql-*.tar.*
	touch "$prefix/.complete"
}

# Where such servers are kept: the tests run unprivileged and must reach them.
own_server_folder()
{
	if am_root; then
		echo "/var/tmp/$1"
	else
		echo "$HOME/.cache/$1"
	fi
}
