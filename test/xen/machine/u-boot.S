// SPDX-License-Identifier: BSD-2-Clause
// Debian's U-Boot for QEMU's arm64 machine, as something that xl loads.  It expects
// its device tree at the beginning of memory, where Xen's guests' begins, too, and
// 2 MiB for that and its first stack, up to where it is loaded.
start:	b	copy
	nop
	.quad	0x200000		// where it is loaded, from the beginning of memory
	.quad	end - start
	.quad	0, 0, 0, 0
	.ascii	"ARM\x64"
	.word	0

copy:	ldr	w1, [x0, 4]		// the tree's size, with the highest byte first
	rev	w1, w1
	mov	x2, 0x40000000
1:	ldp	x3, x4, [x0], 16
	stp	x3, x4, [x2], 16
	subs	x1, x1, 16
	b.hi	1b

	.balign	4096
	.incbin	"u-boot.bin"
end:
