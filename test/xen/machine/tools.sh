#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build the toolstack from XEN_SOURCE, and put it where Debian's packages would
# have: Xen's libraries, xl, and the programs that dom0 starts.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

unpack_xen "$dir/source/tools"
. "$here/machine/toolstack.sh"

# build DIRECTORY TARGET...
build() {
	directory=$1
	shift
	make -C "tools/$directory" -j"$(nproc)" CC="$cc" NO_HEADERS_CHK=y "$@"
}

rm -rf "$tree"/usr/lib/xen-* "$lib"/libxen* "$lib"/libxl* "$lib"/pkgconfig/xen*
make -C tools/include
make -C tools/include install DESTDIR="$tree"
# shellcheck disable=SC2016 # the dollar sign is make's
libraries=$(printf 'include tools/libs/uselibs.mk\nall:\n\t@echo $(LIBS_LIBS)\n' | make -s -f -)
for library in $libraries; do
	case $library in
	vchan | stat) continue ;;
	esac
	build "libs/$library"
	make -C "tools/libs/$library" install CC="$cc" NO_HEADERS_CHK=y DESTDIR="$tree"
done
build xl
build xenstored
build xs-clients
build console
build helpers xen-init-dom0
bin=$tree/usr/lib/xen-$(cat "$dir/version")/bin
mkdir -p "$bin"
cp tools/xl/xl tools/xenstored/xenstored tools/console/daemon/xenconsoled \
    tools/console/client/xenconsole tools/helpers/xen-init-dom0 "$bin/"
cp tools/xs-clients/xenstore-* "$tree/usr/bin/"
