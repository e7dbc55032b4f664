/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Recorded traces of what a guest did to its disk and what it was answered, in
 * the format of traces/README.md, made into structs and judged: what has been
 * parsed is safe to be replayed.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_SECTOR 512
#define TRACE_VCPUS  128
#define TRACE_HEADS  1024 /* the largest queue */

/*
 * Guest memory is here, at most this much.  What a trace has below is moved up.
 */
#define TRACE_MEMORY	 0x40000000ULL
#define TRACE_MEMORY_MAX 0x40000000ULL

/* The content of a sector that no read has told of. */
#define TRACE_UNKNOWN UINT32_MAX

enum trace_kind {
	TRACE_READ,
	TRACE_WRITE,
	TRACE_INVALIDATE,
	TRACE_CHAIN,   /* made available by the driver */
	TRACE_USED,    /* returned to it */
	TRACE_PUBLISH, /* all that was returned since is shown to it */
	TRACE_RAISE,   /* an interrupt that was for something else */
	TRACE_LOWER,   /* the interrupt line goes down */
};

/*
 * Bytes, or whole sectors: the number of each one's content.
 */
struct trace_data {
	size_t len; /* in bytes */
	const uint8_t *bytes;
	const uint32_t *content; /* if not NULL */
};

struct trace_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t index; /* in its table */
	bool writable;
	bool indirect; /* the next ones are in the table at 'addr' */
};

struct trace_event {
	enum trace_kind kind;
	unsigned line;

	/* An access. */
	bool deferred; /* only begun: the end is another event */
	bool waited;   /* the end of such */
	uint32_t vcpu;
	uint32_t offset;
	uint32_t size;
	uint64_t value;

	/* A chain, and its return. */
	uint16_t head;
	bool returned; /* chain: it was, before reset or end */
	unsigned ndesc;
	const struct trace_desc *desc;
	struct trace_data header;    /* chain: first readable bytes */
	struct trace_data data;	     /* chain: the other readable bytes; return:
				     writable ones, without the status */
	uint32_t readable, writable; /* bytes of the chain */
	uint32_t len;		     /* return: bytes written */
	uint8_t status;		     /* return: the last writable byte */
	const struct trace_event *chain; /* return: of this */

	/* Publish. */
	bool known;	/* 'event' is */
	uint16_t event; /* used_event, or the available ring's flags */
	bool raised;
};

struct trace {
	uint64_t sectors;
	bool read_only;
	bool legacy;	 /* the device is of version 1 */
	char serial[21]; /* as the guest was told */
	unsigned vcpus;
	uint64_t memory;   /* bytes of guest memory in use */
	uint32_t *initial; /* content of each sector at the beginning */
	struct trace_event *event;
	size_t events;
	struct trace_block *blocks; /* of memory, for trace_free() */
};

/*
 * Parse 'text' of 'len' bytes.  False: it is no trace; 'why' says so in one
 * line that begins with "line N:".  Either way *trace is to be freed.
 */
bool trace_parse(struct trace *trace, const char *text, size_t len, char *why,
    size_t why_size);
void trace_free(struct trace *trace);

/*
 * The sector with content number 'content': zeros for 0, otherwise noise that
 * is different for each number.
 */
void trace_sector(uint32_t content, uint8_t *sector);

/*
 * Lay out or compare data with memory.
 */
void trace_put(const struct trace_data *data, uint8_t *to);
bool trace_same(const struct trace_data *data, const uint8_t *with);

#endif
