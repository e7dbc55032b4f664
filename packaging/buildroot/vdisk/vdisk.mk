################################################################################
#
# vdisk
#
################################################################################

VDISK_VERSION = 0.2
# What "make dist" makes, in this directory.
VDISK_SITE = $(VDISK_PKGDIR)
VDISK_SITE_METHOD = file
VDISK_SOURCE = vdisk-$(VDISK_VERSION).tar.gz
VDISK_LICENSE = BSD-2-Clause
VDISK_LICENSE_FILES = LICENSE
VDISK_DEPENDENCIES = host-pkgconf libseccomp liburing xen

define VDISK_BUILD_CMDS
	$(MAKE) -C $(@D) $(TARGET_CONFIGURE_OPTS)
endef

define VDISK_INSTALL_TARGET_CMDS
	$(MAKE) -C $(@D) $(TARGET_CONFIGURE_OPTS) PREFIX=/usr INSTALL=$(INSTALL) \
		DESTDIR=$(TARGET_DIR) install
endef

$(eval $(generic-package))
