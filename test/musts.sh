#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Every test that musts.md names is there, and every rule has one.
cd "$(dirname "$0")" || exit 1
status=0
for name in $(grep -o '`[a-z0-9_]*`' musts.md | tr -d '`' | sort -u); do
	grep -q "^START_TEST($name)" check_*.c && continue
	echo "musts.md: no test $name" >&2
	status=1
done
if grep '^|' musts.md | grep -v '^|-' | grep -v 'Test |$' | grep -v '`'; then
	echo "musts.md: a rule without a test" >&2
	status=1
fi
exit $status
