# SPDX-License-Identifier: BSD-2-Clause
# The output of rate for four disks, as a table: vda is vdisk as it is, vdb and
# vdc are the same with fixed settings, xvdi is PV.  The status is 1 if in any row vda
# is worse than 'least' times the better of the fixed settings, or with one request of
# 4k at a time worse than 'least_of_pv' times PV.
function median(list, n,    i, j, swap) {
	for (i = 1; i <= n; i++)
		for (j = i + 1; j <= n; j++)
			if (list[j] < list[i]) {
				swap = list[i]
				list[i] = list[j]
				list[j] = swap
			}
	return (list[int((n + 1) / 2)] + list[int((n + 2) / 2)]) / 2
}

# spread TEXT: the ratios of neighbours, their median and range
function spread(ratio, n,    middle) {
	middle = median(ratio, n)
	return sprintf("%.2f (%.2f..%.2f)", middle, ratio[1], ratio[n])
}
function of(work, disk, list,    i) {
	for (i = 1; i <= rounds; i++)
		list[i] = rate[work, i, disk]
}
function row(work,    i, a, b, c, p, to_best, to_pv, best) {
	of(work, "/dev/vda", a); of(work, "/dev/vdb", b)
	of(work, "/dev/vdc", c); of(work, "/dev/xvdi", p)
	for (i = 1; i <= rounds; i++) {
		best = b[i] > c[i] ? b[i] : c[i]
		to_best[i] = a[i] / (best > 0 ? best : 1)
		to_pv[i] = a[i] / (p[i] > 0 ? p[i] : 1)
	}
	if (median(to_best, rounds) < least ||
	    (work ~ /^4k.*QD1$/ && median(to_pv, rounds) < least_of_pv))
		worse = 1
	printf "%-20s %8.0f %8.0f %8.0f %8.0f   %-18s   %s\n", work, median(a, rounds),
	    median(b, rounds), median(c, rounds), median(p, rounds),
	    spread(to_best, rounds), spread(to_pv, rounds)
}
!($1 in seen) { seen[$1] = 1; works[++n] = $1 }
{ rate[$1, $2, $3] = $4 + 0; rounds = $2 }
END {
	printf "%-20s %8s %8s %8s %8s   %-18s   %s\n", "requests/s", "vdisk", "--poll=0",
	    "50", "PV", "to the better", "to PV"
	for (i = 1; i <= n; i++)
		row(works[i])
	exit worse
}
