/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks for profile.c: instructions of the Arm that do nothing (HINT #98, #99).
 */
#ifndef PROFILE_H
#define PROFILE_H

#define PROFILE_BEGIN 0xd5032c5f
#define PROFILE_END   0xd5032c7f

#endif
