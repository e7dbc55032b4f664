# On Arm a stock configuration of Xen has no IOREQ servers.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"
SRC_URI:append:aarch64 = " file://vdisk-ioreq.cfg"
