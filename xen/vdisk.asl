/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An ACPI table (SSDT) that tells an x86 HVM guest where its virtio disks are,
 * which xl does on Arm only.  Linux finds them there with its own drivers,
 * virtio_mmio and virtio_blk.
 *
 *	iasl -p vdisk vdisk.asl
 *
 * makes vdisk.aml of it, which the guest's configuration names:
 *
 *	acpi_firmware = "/etc/xen/vdisk.aml"
 *
 *	disk	MMIO_BASE	IRQ
 *	1st	0xfeb00000	5	level
 *	2nd	0xfeb00200	7	edge
 *	3rd	0xfeb00400	10	level
 *	4th	0xfeb00600	11	level
 *
 * A disk that is served by no vdisk is none for the guest: instead of registers
 * it finds all ones.
 *
 * These addresses and interrupts are unused in an HVM guest, unless it is given
 * a parallel port (7), or is too old to use an I/O APIC (5, 10 and 11 are PCI
 * devices' then).  5, 10 and 11 are levels because hvmloader's MADT says so,
 * and all others are edges.  No two disks can share one.
 */
DefinitionBlock ("", "SSDT", 2, "VDISK", "VDISKHVM", 1)
{
	Scope (\_SB)
	{
		Device (VDK0)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb00000, 0x200)
				Interrupt (ResourceConsumer, Level, ActiveLow, Exclusive) { 5 }
			})
		}

		Device (VDK1)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 1)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb00200, 0x200)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 7 }
			})
		}

		Device (VDK2)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 2)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb00400, 0x200)
				Interrupt (ResourceConsumer, Level, ActiveLow, Exclusive) { 10 }
			})
		}

		Device (VDK3)
		{
			Name (_HID, "LNRO0005")
			Name (_UID, 3)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xfeb00600, 0x200)
				Interrupt (ResourceConsumer, Level, ActiveLow, Exclusive) { 11 }
			})
		}
	}
}
