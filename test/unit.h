/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device of a unit program: device.c with all that is below it, fakes
 * around it, and no vCPU, so that registers are accessed by calls.
 */
#ifndef UNIT_H
#define UNIT_H

#include <stdbool.h>
#include <stdint.h>

#include "fake_driver.h"
#include "fake_ioreq.h"
#include "fake_log.h"

struct blk;
struct guest;
struct device;

/* The program opens guest memory, and open_unit() disk and device. */
extern struct fake_log lg;
extern struct guest *guest;
extern struct fake_driver drv;
extern struct ioreq_server io;
extern struct blk *blk;
extern struct device *dev;

/*
 * Open the disk at 'path', as 'how' has it (DISK_*), without a lock, which a
 * successor in the same process would find; and the device, 'legacy' or not.
 * False if that refuses.
 */
bool open_unit(const char *path, unsigned how, bool legacy);

/*
 * Register accesses: of any size; and of 4 bytes.  Those that return a bool
 * tell whether the write is done, or waits; wr() does not wait.
 */
uint64_t read_sized(uint32_t offset, uint32_t size);
bool write_sized(uint32_t offset, uint32_t size, uint64_t data);
uint32_t rd(uint32_t offset);
bool try_wr(uint32_t offset, uint32_t data);
void wr(uint32_t offset, uint32_t data);

/*
 * Both halves: of the driver's features, and of the address of a ring, 'low'
 * being its first register.
 */
void choose(uint64_t features);
void place(uint32_t low, uint64_t gpa);

/*
 * Let the device run until it has nothing to do and goes to sleep.
 */
void settle(void);

#endif
