# SPDX-License-Identifier: BSD-2-Clause
# The output of rate for two disks, sorted by work, as a table.
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
function row() {
	if (n > 0)
		printf "%-22s %8.0f %8.0f   %.2f (%.2f..%.2f)\n", work,
		    median(ours, n), median(theirs, n), median(ratio, n), ratio[1], ratio[n]
	n = 0
}
BEGIN { printf "%-22s %8s %8s   %s\n", "requests/s", "vdisk", "PV", "vdisk is so many times PV" }
$1 != work { row(); work = $1 }
$3 == "/dev/vda" { ours[++n] = $4 + 0 }
$3 == "/dev/xvdi" { theirs[n] = $4 + 0; ratio[n] = ours[n] / (theirs[n] > 0 ? theirs[n] : 1) }
END { row() }
