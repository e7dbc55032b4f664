/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether this is built with AddressSanitizer, by gcc or clang.
 */
#ifndef ASAN_H
#define ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#elif defined(__has_feature)
#define ASAN __has_feature(address_sanitizer)
#else
#define ASAN 0
#endif

#endif
