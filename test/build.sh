#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# How vdisk is built and installed by others: each check is a call of make with
# what a user, packager or distribution may give it.  MAKE is the make to use.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
# Nothing of the make that calls us.
unset MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES CFLAGS CPPFLAGS LDFLAGS CC \
    BUILD PROGRAM SANITIZE DESTDIR PREFIX WERROR CROSS_COMPILE PKG_CONFIG
passed=0
failed=0

# check NAME COMMAND...: the command must succeed
check() {
	name=$1
	shift
	if "$@" > "$work/log" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "build: $name: failed"
		sed 's/^/    /' "$work/log"
	fi
}

# build ARGUMENT...: in a directory of its own
build() {
	"${MAKE:-make}" V=1 BUILD="$work/build" PROGRAM="$work/vdisk" "$@"
}

# refused LINE ARGUMENT...: make must fail before it compiles anything, and say
# one line that has LINE in it, beside make's own
refused() {
	line=$1
	shift
	rm -rf "$work/build"
	! "${MAKE:-make}" BUILD="$work/build" PROGRAM="$work/vdisk" "$@" \
	    > "$work/said" 2>&1 || return 1
	cat "$work/said"
	[ "$(grep -vc '^make' "$work/said")" = 1 ] && grep -q "$line" "$work/said"
}

flags_are_added() {
	build CPPFLAGS=-DMINE "$work/build/vdisk.o" > "$work/commands" || return 1
	cat "$work/commands"
	grep -q -e '-DVDISK_VERSION=.*-DMINE' "$work/commands"
}

# The test programs' too: that of "check" may be none.
flags_are_added_to_tests() {
	build CPPFLAGS=-DMINE "$work/build/test/cases.o" > "$work/commands" ||
	    return 1
	grep -q -e '-D_GNU_SOURCE.*-DMINE' "$work/commands"
}

a_warning_stops_only_developers() {
	build CFLAGS=-Wframe-larger-than=1 \
	    "$work/build/sandbox.o" || return 1
	rm -rf "$work/build"
	! build CFLAGS=-Wframe-larger-than=1 WERROR=1 \
	    "$work/build/sandbox.o"
}

a_compiler_may_have_words() {
	build CC='gcc -pipe' "$work/build/sandbox.o" &&
	    CC='gcc -pipe' test/packages.sh
}

# installed ARGUMENT...: into an empty directory, whose files are in $work/files
installed() {
	rm -rf "$work/root"
	build "$@" DESTDIR="$work/root" install || return 1
	(cd "$work/root" && find . -type f | sort) > "$work/files"
	cat "$work/files"
}

it_is_installed_where_it_is_told() {
	installed SBINDIR=/opt/s MANDIR=/opt/m DATADIR=/opt/d UNITDIR=/opt/u &&
	    [ -x "$work/root/opt/s/vdisk" ] &&
	    [ -x "$work/root/opt/s/vdisk-create" ] &&
	    [ -f "$work/root/opt/m/man8/vdisk.8" ] &&
	    [ -f "$work/root/opt/d/vdisk.asl" ] &&
	    [ -x "$work/root/opt/d/vdisk-bind" ] &&
	    [ -f "$work/root/opt/u/vdisk@.service" ] &&
	    ! grep -v '^./opt/' "$work/files"
}

what_is_installed_names_its_places() {
	installed PREFIX=/my || return 1
	! grep -rnE '(^|[^a-z])/usr/(sbin/vdisk|share/vdisk)' "$work/root/my" &&
	    grep -q ' /my/sbin/vdisk ' \
		"$work/root/my/lib/systemd/system/vdisk@.service" &&
	    grep -q '^\.It Pa /my/share/vdisk/vdisk.te' \
		"$work/root/my/share/man/man8/vdisk.8"
}

another_program_installs() {
	cat > "$work/installer" <<-END
		#!/bin/sh
		echo "\$*" >> "$work/called"
		exec install "\$@"
	END
	chmod +x "$work/installer"
	installed INSTALL="$work/installer -p" && cat "$work/called" &&
	    grep -q 'vdisk.te' "$work/called" && ! grep -v '^-p' "$work/called"
}

a_release_is_made_only_of_a_commit() {
	mkdir -p "$work/plain" || return 1
	cp GNUmakefile "$work/plain/" && mkdir -p "$work/plain/test/xen" &&
	    cp test/*.mk "$work/plain/test/" && cp test/xen/*.mk "$work/plain/test/xen/"
	! (cd "$work/plain" && "${MAKE:-make}" dist) > "$work/said" 2>&1 || return 1
	cat "$work/said"
	[ "$(grep -vc '^make' "$work/said")" = 1 ] &&
	    [ ! -e "$work/plain/build" ]
}

# Only what is missing: a pkg-config that does not know Check.
only_what_is_missing_is_named() {
	mkdir -p "$work/bin"
	cat > "$work/bin/pkg-config" <<-'END'
		#!/bin/sh
		for word; do [ "$word" != check ] || exit 1; done
	END
	printf '#!/bin/sh\necho 1000\n' > "$work/bin/id"
	chmod +x "$work/bin/pkg-config" "$work/bin/id"
	! PATH=$work/bin:$PATH test/packages.sh > "$work/said" 2>&1 || return 1
	cat "$work/said"
	[ "$(cat "$work/said")" = 'missing packages: apt-get install check' ]
}

# Another program updates apt's lists, and has done so at the second look; or else
# $1 is what is wrong.
lists_are_locked() {
	mkdir -p "$work/apt"
	printf '#!/bin/sh\necho 0\n' > "$work/apt/id"
	cat > "$work/apt/apt-get" <<-END
		#!/bin/sh
		echo "\$*" >> "$work/apt/called"
		case \$* in
		*update) [ "\$(wc -l < "$work/apt/called")" != 1 ] || { echo "E: $1"; exit 100; } ;;
		esac
	END
	chmod +x "$work/apt/id" "$work/apt/apt-get"
	rm -f "$work/apt/called"
	status=0
	PATH=$work/apt:$PATH test/install.sh check > "$work/said" 2>&1 || status=$?
	cat "$work/said" "$work/apt/called"
	return "$status"
}

locked='Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)'

who_updates_lists_is_waited_for() {
	lists_are_locked "$locked" && [ "$(wc -l < "$work/apt/called")" = 3 ]
}

what_else_is_wrong_with_lists_is_said() {
	! lists_are_locked 'No space left on device' &&
	    [ "$(wc -l < "$work/apt/called")" = 1 ] &&
	    grep -q 'cannot install check: No space' "$work/said"
}

check "CPPFLAGS are added" flags_are_added
check "CPPFLAGS are added for tests" flags_are_added_to_tests
check "warnings stop only developers" a_warning_stops_only_developers
check "CC of two words" a_compiler_may_have_words
check "no pkg-config" refused 'no-such-pkg-config' PKG_CONFIG=no-such-pkg-config
check "no compiler" refused 'no-such-cc' CC=no-such-cc
check "no libraries" refused 'xendevicemodel' PKG_CONFIG_LIBDIR="$work"
check "another processor" refused 'neither arm64 nor x86-64' \
    CC='gcc -U__x86_64__ -U__aarch64__'
check "places" it_is_installed_where_it_is_told
check "places in texts" what_is_installed_names_its_places
check "INSTALL" another_program_installs
check "dist outside of git" a_release_is_made_only_of_a_commit
check "missing packages" only_what_is_missing_is_named
check "apt's lists are being updated" who_updates_lists_is_waited_for
check "apt cannot update its lists" what_else_is_wrong_with_lists_is_said
cd "$top" || exit 1
echo "build: $passed passed, $failed failed"
[ "$failed" = 0 ]
