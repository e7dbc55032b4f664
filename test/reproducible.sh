#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# What is released must not depend on where it is built: build the archive that
# make dist makes in two directories, as it is and sanitised, and compare.
set -eu
archive=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

for place in one another/place; do
	mkdir -p "$work/$place"
	tar -xzf "$archive" -C "$work/$place" --strip-components=1
	make -s -C "$work/$place" say= vdisk
	make -s -C "$work/$place" say= BUILD=sanitised PROGRAM=sanitised/vdisk \
	    SANITIZE='-fsanitize=address,undefined' sanitised/vdisk
done
for program in vdisk sanitised/vdisk; do
	cmp "$work/one/$program" "$work/another/place/$program"
	echo "$program is the same wherever it is built"
done
