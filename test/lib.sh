# shellcheck shell=bash
#
# lib.sh
#	  What quickstart and the test programs share: packages, PG_CONFIG, a
#	  private copy of the tree, a private installation.
#
# Sourced by bash, after "set -eu". Nothing here runs by itself, and every
# function speaks through say and die. Only the package manager writes into
# /usr; everything else lands in a folder the caller gives.

# What of relay/ tests build, where it can be built; the last one is theirs alone.
QUEUE_SINKS='file http postgres program fake'

# The user that servers and tests run as when we are root: initdb and the TAP
# tests refuse root.
QUEUE_USER=${QUEUE_USER:-postgres}

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

am_root()
{
	[ "$(id -u)" = 0 ]
}

# Runs a command with root's rights: for the package manager only.
as_root()
{
	if am_root; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this needs root, and there is no sudo: run as root: $*"
	fi
}

# Runs a command as the unprivileged user when we are root, else as it is.
# setpriv and not su: it replaces itself, so that the process we see is the
# command, and it needs no terminal.
as_user()
{
	if am_root; then
		setpriv --reuid "$QUEUE_USER" --regid "$(id -g "$QUEUE_USER")" --init-groups \
			env HOME="${QUEUE_HOME:-/tmp}" "$@"
	else
		"$@"
	fi
}

# Forgets what the caller's shell says about other servers, and speaks one
# language, so that what we start and read is the same everywhere.
clean_environment()
{
	local name

	for name in "${!PG@}"; do
		[ "$name" = PG_CONFIG ] || unset "$name"
	done
	unset LANGUAGE "${!LC_@}"
	export LANG=C.UTF-8
}

# ----- packages

package_installed()
{
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_get()
{
	as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
		apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# Our file, present only while packages are being installed.
CLUSTER_GUARD=/etc/postgresql-common/createcluster.d/zz-queue-no-cluster.conf

guard_clusters()
{
	as_root mkdir -p "${CLUSTER_GUARD%/*}"
	echo 'create_main_cluster = false' | as_root tee $CLUSTER_GUARD >/dev/null
}

# The folders stay if postgresql-common owns them by now, else they go too.
unguard_clusters()
{
	as_root rm -f $CLUSTER_GUARD
	as_root rmdir -p --ignore-fail-on-non-empty "${CLUSTER_GUARD%/*}" 2>/dev/null || true
}

# Installs what is missing of the named Debian packages; does nothing, and asks
# for no rights, when all are there. A server package installed on the way
# creates no cluster. Clusters that exist are left alone.
install_packages()
{
	local package log missing=()

	command -v dpkg-query >/dev/null || {
		say "not a Debian system: taking for granted that these are there: $*"
		return 0
	}
	for package; do
		package_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	say "installing ${missing[*]}"
	log=$(mktemp)
	(
		trap unguard_clusters EXIT
		trap 'exit 130' INT TERM
		guard_clusters || exit
		# Package lists may be absent or older than the mirror: once more after
		# an update.
		apt_get install -y --no-install-recommends "${missing[@]}" ||
			{ apt_get update || true; apt_get install -y --no-install-recommends "${missing[@]}"; }
	) >"$log" 2>&1 || {
		tail -n 25 "$log" >&2
		rm -f "$log"
		die "could not install: ${missing[*]}"
	}
	rm -f "$log"
}

# ----- which PostgreSQL

# The newest major whose server is installed from packages, or nothing.
newest_server()
{
	local postgres majors=()

	for postgres in /usr/lib/postgresql/*/bin/postgres; do
		[ -x "$postgres" ] || continue
		postgres=${postgres#/usr/lib/postgresql/}
		majors+=("${postgres%%/*}")
	done
	[ ${#majors[@]} -eq 0 ] || printf '%s\n' "${majors[@]}" | sort -n | tail -n 1
}

# The major that the distribution's package "postgresql" stands for, or nothing.
distribution_major()
{
	apt-cache depends postgresql 2>/dev/null |
		sed -n 's/^ *Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | tail -n 1
}

# Sets PG_CONFIG (absolute) and PG_MAJOR: PG_CONFIG from the environment, else
# the newest installed server, else what the distribution has, installed with
# what it takes to build an extension. An own build needs no packages but the
# compiler.
find_postgres()
{
	local major packages=(gcc make)

	# What a Makefile passes on by default need not be there.
	if [ "${PG_CONFIG:-}" = pg_config ] && ! command -v pg_config >/dev/null; then
		PG_CONFIG=
	fi
	if [ -z "${PG_CONFIG:-}" ]; then
		major=$(newest_server)
		if [ -z "$major" ]; then
			major=$(distribution_major)
			[ -n "$major" ] || { apt_get update >/dev/null 2>&1 || true; major=$(distribution_major); }
			[ -n "$major" ] || die "no PostgreSQL server found; set PG_CONFIG"
		fi
		PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
	fi

	# Debian's wrapper /usr/bin/pg_config stands for one of the majors: name it.
	case $(readlink -f "$(command -v "$PG_CONFIG" || echo "$PG_CONFIG")") in
		/usr/bin/*)
			PG_CONFIG=$("$PG_CONFIG" --bindir)/pg_config
			;;
	esac
	case $PG_CONFIG in
		/usr/lib/postgresql/*)
			major=${PG_CONFIG#/usr/lib/postgresql/}
			major=${major%%/*}
			packages+=("postgresql-$major" "postgresql-server-dev-$major")
			;;
	esac
	install_packages "${packages[@]}"

	PG_CONFIG=$(command -v "$PG_CONFIG") || die "there is no pg_config at PG_CONFIG"
	PG_CONFIG=$(readlink -f "$PG_CONFIG")
	PG_MAJOR=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	export PG_CONFIG PG_MAJOR
}

# Does this server find extensions outside its own installation? Debian's do by
# a setting of their own; from 18 on every server does.
has_extension_destdir()
{
	"$("$PG_CONFIG" --bindir)/postgres" --describe-config | grep -q '^extension_destdir'
}

# ----- a private copy, a private installation

# Copies the tree at $1 as git sees it (tracked, and new files that are not
# ignored) into the folder $2, so that a build neither meets nor leaves objects
# in the checkout.
copy_tree()
{
	local from=$1 to=$2 list

	mkdir -p "$to"
	list=$(mktemp)
	if git -c safe.directory='*' -C "$from" ls-files -z -co --exclude-standard >"$list" 2>/dev/null; then
		# A file deleted but not committed is listed yet.
		(cd "$from" && while IFS= read -r -d '' file; do
			if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi
		done) <"$list" | tar -C "$from" --null -T - -cf - | tar -C "$to" -xf -
	else
		# Not a git checkout: an unpacked archive.
		tar -C "$from" --exclude=./.git --exclude=./.quickstart --exclude='*.o' --exclude='*.so' -cf - . |
			tar -C "$to" -xf -
	fi
	rm -f "$list"
}

# Builds the tree at $1 and installs it below $2. The output goes to $2.log; the
# errors are shown when it fails. Bitcode would take clang and half of the time.
build_tree()
{
	local tree=$1 destdir=$2

	if ! {
		make -C "$tree" -s -j2 PG_CONFIG="$PG_CONFIG" with_llvm=no &&
			make -C "$tree" -s PG_CONFIG="$PG_CONFIG" SINKS="$QUEUE_SINKS" sinks &&
			make -C "$tree" -s PG_CONFIG="$PG_CONFIG" with_llvm=no SINKS="$QUEUE_SINKS" DESTDIR="$destdir" install
	} >"$destdir.log" 2>&1 </dev/null; then
		grep -m 15 'error:' "$destdir.log" >&2 || tail -n 25 "$destdir.log" >&2
		die "the build failed with $PG_CONFIG"
	fi
}

# Prints the settings by which a server finds what was installed below $1.
destdir_settings()
{
	local destdir=$1

	if has_extension_destdir; then
		echo "extension_destdir = '$destdir'"
	elif [ "$PG_MAJOR" -ge 18 ]; then
		echo "extension_control_path = '$destdir$("$PG_CONFIG" --sharedir):\$system'"
	else
		die "this server finds extensions only in its own installation ($("$PG_CONFIG" --sharedir)): install there and leave out --destdir"
	fi
	echo "dynamic_library_path = '$destdir$("$PG_CONFIG" --pkglibdir):\$libdir'"
}

# ----- chroots, for root only

# Makes a minimal Debian at $1 of suite $2 unless there is one. debootstrap may be
# older than the suite: sid's script serves every newer one.
make_chroot()
{
	local root=$1 suite=$2 script=/usr/share/debootstrap/scripts/$2
	local mirror=${QUEUE_MIRROR:-http://deb.debian.org/debian}

	[ ! -e "$root/.complete" ] || return 0
	install_packages debootstrap debian-archive-keyring util-linux
	[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
	rm -rf "$root"
	mkdir -p "$root"
	if ! debootstrap --variant=minbase "$suite" "$root" "$mirror" "$script" >"$root.log" 2>&1 </dev/null; then
		tail -n 15 "$root.log" >&2
		return 1
	fi
	case $suite in
		sid | experimental) ;;
		*)
			{
				echo "deb $mirror $suite-updates main"
				echo "deb ${QUEUE_SECURITY_MIRROR:-${mirror%/debian}/debian-security} $suite-security main"
			} >>"$root/etc/apt/sources.list"
			;;
	esac
	touch "$root/.complete"
}

# The Debian suite that has a major of PostgreSQL, or nothing.
suite_of()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo forky ;;
		19) echo sid ;;
	esac
}

# Makes a chroot at $1 with the server of major $2 in it, from the suite that has
# it. From experimental come only the pre-release itself and the libpq it needs.
make_server_chroot()
{
	local root=$1 major=$2 suite packages=(gcc make tini "postgresql-$2" "postgresql-server-dev-$2")

	suite=$(suite_of "$major")
	[ -n "$suite" ] || die "no Debian suite is known for PostgreSQL $major"
	make_chroot "$root" "$suite" || return
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	mkdir -p "$root/etc/postgresql-common/createcluster.d"
	echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.d/none.conf"
	# The releases of unstable suites expire within a week, also on mirrors that
	# are snapshots.
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90snapshot"
	if [ "$major" = 19 ]; then
		echo "deb ${QUEUE_MIRROR:-http://deb.debian.org/debian} experimental main" \
			>"$root/etc/apt/sources.list.d/experimental.list"
		packages+=(libpq5/experimental libpq-dev/experimental)
	fi
	[ -x "$root/usr/lib/postgresql/$major/bin/postgres" ] && [ -d "$root/usr/include/postgresql/$major/server" ] && return
	in_chroot "$root" apt-get -q update >"$root.log" 2>&1 || return
	in_chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
		install -y --no-install-recommends "${packages[@]}" >>"$root.log" 2>&1
}

# Runs a command in the chroot $1, in namespaces of its own: when it ends, so do
# all processes it left and all mounts. The environment is a fresh login's.
in_chroot()
{
	local root=$1
	shift

	cp /etc/resolv.conf /etc/hosts "$root/etc/"
	# shellcheck disable=SC2016
	unshare --mount --pid --fork --kill-child -- sh -euc '
		root=$1
		shift
		mount -t proc proc "$root/proc"
		mount --rbind /sys "$root/sys"
		mount --rbind /dev "$root/dev"
		mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
		exec chroot "$root" /usr/bin/env -i HOME=/root USER=root LOGNAME=root TERM=dumb \
			${http_proxy:+http_proxy="$http_proxy"} \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$root" "$@" </dev/null
}
