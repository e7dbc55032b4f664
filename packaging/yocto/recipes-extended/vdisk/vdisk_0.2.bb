SUMMARY = "Virtio disks for guests of the Xen hypervisor"
DESCRIPTION = "vdisk serves one regular file or block device to one guest of \
Xen, as a virtio-mmio device of an IOREQ server of its own."
LICENSE = "BSD-2-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=b5ec366dff5a34190cc75c9cdfd93a07"

# What "make dist" makes, in the directory vdisk beside this recipe.
SRC_URI = "file://vdisk-${PV}.tar.gz"

DEPENDS = "libseccomp liburing xen-tools"

inherit pkgconfig features_check systemd

REQUIRED_DISTRO_FEATURES = "xen"
COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

# The class would start each instance; that is for the administrator.
SYSTEMD_SERVICE:${PN} = "vdisk@.service"
SYSTEMD_AUTO_ENABLE = "disable"

# The compiler, its flags and the sysroot come from the environment.
EXTRA_OEMAKE = "'CC=${CC}' 'CFLAGS=${CFLAGS}' 'CPPFLAGS=${CPPFLAGS}' \
    'LDFLAGS=${LDFLAGS}' PKG_CONFIG=pkg-config PREFIX=${prefix} \
    SBINDIR=${sbindir} MANDIR=${mandir} DATADIR=${datadir}/vdisk \
    UNITDIR=${systemd_system_unitdir}"

do_install() {
    oe_runmake install DESTDIR=${D}
}

FILES:${PN} += "${datadir}/vdisk ${systemd_system_unitdir}"

# vdisk-create asks xl and Xenstore; without it vdisk needs neither.
RSUGGESTS:${PN} = "xen-tools-xl xen-tools-xenstore"
