/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of recorded traces.  Owns the grammar and every rule that a trace
 * must keep to be replayed: data as long as the buffers it is in, returns of
 * chains that are in flight.  Knows nothing of how it is replayed.
 */
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>

#include "trace.h"

#define HEADER	    sizeof(struct virtio_blk_outhdr)
#define DESCS_MAX   1024
#define DATA_MAX    (8 << 20) /* of one chain */
#define SECTORS_MAX (1 << 21)
#define RING_MAX    (TRACE_HEADS * 16)
#define RINGS_MAX   (4 * RING_MAX) /* all three, and what is between */

struct trace_block {
	struct trace_block *next;
};

struct parser {
	struct trace *t;
	unsigned line;
	const char *p; /* where in the line */
	char *why;
	size_t why_size;
	size_t room; /* for events */
	bool ended;
	size_t life;		   /* first event since the reset */
	uint64_t page_size;	   /* of version 1 */
	bool returning;		   /* a return is not published yet */
	size_t chain[TRACE_HEADS]; /* event of the chain in flight + 1 */
	struct trace_desc desc[DESCS_MAX];    /* of the chain being parsed */
	struct trace_event wait[TRACE_VCPUS]; /* deferred; line 0: none */
};

static bool __attribute__((format(printf, 2, 3)))
wrong(struct parser *ps, const char *format, ...)
{
	va_list ap;
	int n = snprintf(ps->why, ps->why_size, "line %u: ", ps->line);

	va_start(ap, format);
	vsnprintf(ps->why + n, ps->why_size - n, format, ap);
	va_end(ap);
	return false;
}

/*
 * Zeroed memory that lives as long as the trace.
 */
static void *
keep(struct trace *t, size_t size)
{
	struct trace_block *b = calloc(1, sizeof(*b) + 8 + size);

	if (b == NULL)
		abort();
	b->next = t->blocks;
	t->blocks = b;
	return (char *)b + 16;
}

void
trace_free(struct trace *t)
{
	struct trace_block *b;

	_Static_assert(sizeof(struct trace_block) <= 16, "keep()");
	while ((b = t->blocks) != NULL) {
		t->blocks = b->next;
		free(b);
	}
	free(t->event);
	t->event = NULL;
}

/*
 * Take 'text' off the line.
 */
static bool
take(struct parser *ps, const char *text)
{
	size_t n = strlen(text);

	if (strncmp(ps->p, text, n) != 0)
		return false;
	ps->p += n;
	return true;
}

/*
 * Take a hexadecimal number of at most 'max'.
 */
static bool
take_number(struct parser *ps, uint64_t max, uint64_t *value)
{
	static const char digits[] = "0123456789abcdef";
	const char *d;
	unsigned n;

	*value = 0;
	for (n = 0; *ps->p != '\0'; n++, ps->p++) {
		d = strchr(digits, *ps->p);
		if (d == NULL)
			break;
		if (*value >> 60 != 0)
			return wrong(ps, "number too large");
		*value = *value << 4 | (uint64_t)(d - digits);
	}
	if (n == 0)
		return wrong(ps, "a number is missing at '%.10s'", ps->p);
	if (*value > max)
		return wrong(ps, "number too large");
	return true;
}

static bool
number(struct parser *ps, uint64_t max, uint64_t *value)
{
	if (!take(ps, " "))
		return wrong(ps, "a number is missing at '%.10s'", ps->p);
	return take_number(ps, max, value);
}

/*
 * The end of the line.
 */
static bool
end(struct parser *ps)
{
	return *ps->p == '\0' || wrong(ps, "extra '%.10s'", ps->p);
}

static struct trace_event *
add(struct parser *ps, enum trace_kind kind)
{
	struct trace *t = ps->t;

	if (t->events == ps->room) {
		ps->room = ps->room * 2 + 256;
		t->event = realloc(t->event, ps->room * sizeof(*t->event));
		if (t->event == NULL)
			abort();
	}
	t->event[t->events] =
	    (struct trace_event){.kind = kind, .line = ps->line};
	return &t->event[t->events++];
}

/*
 * Bytes as they are: "xHH...", of which there must be 'len'.
 */
static bool
take_bytes(struct parser *ps, size_t len, struct trace_data *data)
{
	uint8_t *bytes;
	unsigned byte;
	size_t i;

	if (!take(ps, " x"))
		return wrong(ps, "bytes are missing at '%.10s'", ps->p);
	if (strspn(ps->p, "0123456789abcdef") != 2 * len)
		return wrong(ps, "not %zu bytes of data", len);
	bytes = keep(ps->t, len);
	for (i = 0; i < len; i++, ps->p += 2) {
		sscanf(ps->p, "%2x", &byte);
		bytes[i] = byte;
	}
	*data = (struct trace_data){.len = len, .bytes = bytes};
	return true;
}

/*
 * A run of sectors: "zCOUNT", "FIRST-LAST" or "ONE".
 */
static bool
take_run(struct parser *ps, uint32_t *content, size_t *n, size_t max)
{
	uint64_t first = 0, count, last;

	if (take(ps, "z")) {
		if (!take_number(ps, max - *n, &count))
			return false;
	} else {
		if (!take_number(ps, TRACE_UNKNOWN - 1, &first))
			return false;
		last = first;
		if (take(ps, "-") && !take_number(ps, TRACE_UNKNOWN - 1, &last))
			return false;
		if (first == 0 || last < first || last - first >= max - *n)
			return wrong(ps, "not %zu sectors of data", max);
		count = last - first + 1;
	}
	for (; count > 0; count--) {
		content[(*n)++] = first;
		first += first != 0;
	}
	return true;
}

/*
 * Data, of which there must be 'len' bytes.
 */
static bool
take_data(struct parser *ps, size_t len, struct trace_data *data)
{
	size_t n = 0, sectors = len / TRACE_SECTOR;
	uint32_t *content;

	*data = (struct trace_data){.len = len};
	if (len == 0)
		return true;
	if (len % TRACE_SECTOR != 0)
		return take_bytes(ps, len, data);
	content = keep(ps->t, sectors * sizeof(*content));
	if (!take(ps, " "))
		return wrong(ps, "data is missing at '%.10s'", ps->p);
	do {
		if (!take_run(ps, content, &n, sectors))
			return false;
	} while (take(ps, ","));
	data->content = content;
	return n == sectors || wrong(ps, "not %zu sectors of data", sectors);
}

/*
 * The guest has memory up to 'limit'.
 */
static void
use_memory(struct parser *ps, uint64_t limit)
{
	if (limit - TRACE_MEMORY > ps->t->memory &&
	    limit - TRACE_MEMORY <= TRACE_MEMORY_MAX)
		ps->t->memory = limit - TRACE_MEMORY;
}

/*
 * Where address 'gpa' is in the replay: x86 guests have their memory lower.
 */
static uint64_t
place(uint64_t gpa)
{
	return gpa < TRACE_MEMORY ? gpa + TRACE_MEMORY : gpa;
}

/*
 * A descriptor: "[INDEX/]ADDRESS+LENGTH[i|w]".
 */
static bool
take_desc(struct parser *ps, uint64_t expected, struct trace_desc *d)
{
	uint64_t v, index = expected;

	if (!take_number(ps, UINT64_MAX, &v))
		return false;
	if (take(ps, "/")) {
		index = v;
		if (!take_number(ps, UINT64_MAX, &v))
			return false;
	}
	if (index >= TRACE_HEADS)
		return wrong(ps, "descriptor index too large");
	d->index = index;
	d->addr = place(v);
	if (!take(ps, "+"))
		return wrong(ps, "a length is missing at '%.10s'", ps->p);
	if (!take_number(ps, DATA_MAX, &v))
		return false;
	d->len = v;
	d->indirect = take(ps, "i");
	d->writable = !d->indirect && take(ps, "w");
	if (d->addr - TRACE_MEMORY > TRACE_MEMORY_MAX - d->len)
		return wrong(ps, "address outside guest memory");
	if (d->indirect && d->addr % 16 != 0)
		return wrong(ps, "indirect table not aligned");
	use_memory(ps, d->addr + d->len);
	return true;
}

static bool
take_descs(struct parser *ps, struct trace_event *e)
{
	struct trace_desc *list = ps->desc, *kept;
	const struct trace_desc *table = NULL;
	uint64_t expected = e->head;

	while (!take(ps, " =")) {
		struct trace_desc *d = &list[e->ndesc];

		if (!take(ps, " "))
			return wrong(ps, "' =' is missing at '%.10s'", ps->p);
		if (e->ndesc == DESCS_MAX)
			return wrong(ps, "chain too long");
		if (!take_desc(ps, expected, d))
			return false;
		e->ndesc++;
		expected = d->index + 1;
		if (d->indirect && table != NULL)
			return wrong(ps, "indirect table nested");
		if (!d->indirect && table != NULL &&
		    d->index >= table->len / 16)
			return wrong(ps, "descriptor beyond its table");
		if (d->indirect) {
			table = d;
			expected = 0;
		} else if (d->writable) {
			e->writable += d->len;
		} else {
			e->readable += d->len;
		}
		if (e->writable > DATA_MAX || e->readable > DATA_MAX)
			return wrong(ps, "chain too long");
	}
	if (e->ndesc == 0 || list[0].index != e->head ||
	    list[e->ndesc - 1].indirect)
		return wrong(ps, "chain without buffers");
	kept = keep(ps->t, e->ndesc * sizeof(*kept));
	memcpy(kept, list, e->ndesc * sizeof(*kept));
	e->desc = kept;
	return true;
}

static bool
parse_chain(struct parser *ps)
{
	struct trace_event *e = add(ps, TRACE_CHAIN);
	uint64_t head;
	size_t header;

	if (!number(ps, TRACE_HEADS - 1, &head))
		return false;
	e->head = head;
	if (ps->chain[head] != 0)
		return wrong(ps, "head %x is in flight already", e->head);
	ps->chain[head] = ps->t->events;
	if (!take_descs(ps, e))
		return false;
	if (e->writable == 0)
		return wrong(ps, "chain without a status byte");
	header = e->readable < HEADER ? e->readable : HEADER;
	return take_bytes(ps, header, &e->header) &&
	       take_data(ps, e->readable - header, &e->data) && end(ps);
}

/*
 * A sector of the disk was seen to have this content.  What is told first of a
 * sector is what it had from the beginning, unless it was written.
 */
static void
saw_sectors(struct parser *ps, const struct trace_event *chain,
    const struct trace_data *data, bool written)
{
	struct virtio_blk_outhdr hdr;
	uint64_t i, sector;

	memcpy(&hdr, chain->header.bytes, sizeof(hdr));
	sector = le64toh(hdr.sector);
	for (i = 0; i < data->len / TRACE_SECTOR; i++)
		if (sector < ps->t->sectors && i < ps->t->sectors - sector &&
		    ps->t->initial[sector + i] == TRACE_UNKNOWN)
			ps->t->initial[sector + i] =
			    written ? 0 : data->content[i];
}

/*
 * What a returned request tells of the disk.
 */
static void
saw_request(struct parser *ps, const struct trace_event *chain,
    const struct trace_event *used)
{
	struct virtio_blk_outhdr hdr;

	if (chain->header.len < sizeof(hdr) || used->status != VIRTIO_BLK_S_OK)
		return;
	memcpy(&hdr, chain->header.bytes, sizeof(hdr));
	switch (le32toh(hdr.type)) {
	case VIRTIO_BLK_T_IN:
		if (used->data.content != NULL)
			saw_sectors(ps, chain, &used->data, false);
		break;
	case VIRTIO_BLK_T_OUT:
		if (chain->data.content != NULL)
			saw_sectors(ps, chain, &chain->data, true);
		break;
	case VIRTIO_BLK_T_GET_ID:
		if (used->data.len <= VIRTIO_BLK_ID_BYTES && used->data.len > 0)
			memcpy(ps->t->serial, used->data.bytes, used->data.len);
		break;
	}
}

static bool
parse_used(struct parser *ps)
{
	struct trace_event *e = add(ps, TRACE_USED), *chain;
	uint64_t head, len, status;
	size_t room;

	if (!number(ps, TRACE_HEADS - 1, &head) ||
	    !number(ps, UINT32_MAX, &len) || !number(ps, UINT8_MAX, &status))
		return false;
	if (ps->chain[head] == 0)
		return wrong(ps, "head %x is not in flight", (unsigned)head);
	chain = &ps->t->event[ps->chain[head] - 1];
	ps->chain[head] = 0;
	chain->returned = true;
	if (len > chain->writable)
		return wrong(ps, "more bytes than the chain has");
	e->head = head;
	e->len = len;
	e->status = status;
	room = chain->writable - 1;
	if (!take_data(ps, len < room ? len : room, &e->data))
		return false;
	saw_request(ps, chain, e);
	ps->returning = true;
	return end(ps);
}

static bool
parse_publish(struct parser *ps)
{
	struct trace_event *e = add(ps, TRACE_PUBLISH);
	uint64_t event = 0;

	if (!ps->returning)
		return wrong(ps, "nothing was returned");
	ps->returning = false;
	e->known = !take(ps, " ?");
	if (e->known && !number(ps, UINT16_MAX, &event))
		return false;
	e->event = event;
	e->raised = take(ps, " raised");
	if (!e->raised && !take(ps, " quiet"))
		return wrong(ps, "neither 'raised' nor 'quiet'");
	return end(ps);
}

/*
 * The queue's life is over.  Chains are taken in order, and what is taken is
 * returned before: so what is not was never taken, nor anything after it.
 */
static bool
end_life(struct parser *ps)
{
	const struct trace_event *e, *left = NULL;
	size_t i;

	for (i = ps->life; i < ps->t->events; i++) {
		e = &ps->t->event[i];
		if (e->kind != TRACE_CHAIN)
			continue;
		if (e->returned && left != NULL) {
			ps->line = left->line;
			return wrong(
			    ps, "head %x is never returned", left->head);
		}
		if (!e->returned && left == NULL)
			left = e;
	}
	ps->life = ps->t->events;
	memset(ps->chain, 0, sizeof(ps->chain));
	return true;
}

/*
 * An access, begun ('deferred') or answered.
 */
static bool
parse_access(struct parser *ps, enum trace_kind kind, bool deferred)
{
	struct trace_event *e = add(ps, kind), *wait;
	uint64_t vcpu, offset = 0, size = 4;

	e->deferred = deferred;
	if (!number(ps, TRACE_VCPUS - 1, &vcpu))
		return false;
	if (kind != TRACE_INVALIDATE &&
	    (!number(ps, 0x1ff, &offset) || !number(ps, 8, &size) ||
		!number(ps, UINT64_MAX, &e->value)))
		return false;
	if (size == 0 || (size & (size - 1)) != 0 || offset + size > 0x200)
		return wrong(ps, "access of odd size");
	e->vcpu = vcpu;
	e->offset = offset;
	e->size = size;
	if (ps->t->vcpus <= vcpu)
		ps->t->vcpus = vcpu + 1;
	if (kind == TRACE_WRITE && (offset == VIRTIO_MMIO_QUEUE_DESC_LOW ||
				       offset == VIRTIO_MMIO_QUEUE_AVAIL_LOW ||
				       offset == VIRTIO_MMIO_QUEUE_USED_LOW)) {
		e->value = place(e->value);
		use_memory(ps, e->value + RING_MAX);
	}
	if (kind == TRACE_READ && offset == VIRTIO_MMIO_VERSION)
		ps->t->legacy = e->value == 1;
	if (kind == TRACE_WRITE && offset == VIRTIO_MMIO_GUEST_PAGE_SIZE)
		ps->page_size = (uint32_t)e->value;
	if (kind == TRACE_WRITE && offset == VIRTIO_MMIO_QUEUE_PFN)
		use_memory(ps, (uint32_t)e->value * ps->page_size + RINGS_MAX);
	wait = &ps->wait[vcpu];
	e->waited = wait->line != 0;
	if (e->waited &&
	    (deferred || wait->kind != kind || wait->offset != offset ||
		wait->size != size || wait->value != e->value))
		return wrong(ps, "vCPU %x waits for another access", e->vcpu);
	*wait = deferred ? *e : (struct trace_event){.line = 0};
	if (kind == TRACE_WRITE && !deferred && e->value == 0 &&
	    (offset == VIRTIO_MMIO_STATUS ||
		offset == VIRTIO_MMIO_QUEUE_READY ||
		offset == VIRTIO_MMIO_QUEUE_PFN))
		return end(ps) && end_life(ps);
	return end(ps);
}

static bool
parse_head(struct parser *ps)
{
	struct trace *t = ps->t;
	uint64_t i;

	if (ps->line == 1)
		return (take(ps, "vdisk trace 1") && end(ps)) ||
		       wrong(ps, "not a trace of version 1");
	if (t->initial != NULL) {
		t->read_only = true;
		return (take(ps, "read-only") && end(ps)) ||
		       wrong(ps, "not 'read-only'");
	}
	if (!take(ps, "sectors") || !number(ps, SECTORS_MAX, &t->sectors))
		return wrong(ps, "not the number of sectors");
	if (t->sectors == 0)
		return wrong(ps, "no sectors: was it a regular file?");
	t->initial = keep(t, t->sectors * sizeof(*t->initial));
	for (i = 0; i < t->sectors; i++)
		t->initial[i] = TRACE_UNKNOWN;
	return end(ps);
}

static bool
parse_line(struct parser *ps)
{
	if (ps->ended)
		return wrong(ps, "something after the end");
	if (ps->line < 3 || (ps->line == 3 && *ps->p == 'r'))
		return parse_head(ps);
	if (take(ps, "U"))
		return parse_used(ps);
	if (take(ps, "P"))
		return parse_publish(ps);
	if (ps->returning)
		return wrong(ps, "what was returned is not published");
	if (take(ps, "C"))
		return parse_chain(ps);
	if (take(ps, "R"))
		return parse_access(ps, TRACE_READ, false);
	if (take(ps, "W"))
		return parse_access(ps, TRACE_WRITE, false);
	if (take(ps, "V"))
		return parse_access(ps, TRACE_INVALIDATE, false);
	if (take(ps, "DW"))
		return parse_access(ps, TRACE_WRITE, true);
	if (take(ps, "DV"))
		return parse_access(ps, TRACE_INVALIDATE, true);
	if (take(ps, "I")) {
		add(ps, TRACE_RAISE);
		return end(ps);
	}
	if (take(ps, "L")) {
		add(ps, TRACE_LOWER);
		return end(ps);
	}
	if (take(ps, "lost: "))
		return wrong(ps, "the recorder lost track: %s", ps->p);
	if (!take(ps, "end"))
		return wrong(ps, "unknown line '%.10s'", ps->p);
	ps->ended = true;
	return end(ps) && end_life(ps);
}

bool
trace_parse(
    struct trace *t, const char *text, size_t len, char *why, size_t why_size)
{
	struct parser *ps;
	const char *eol, *stop = text + len;
	bool good = true;

	*t = (struct trace){.vcpus = 1};
	ps = keep(t, sizeof(*ps));
	ps->t = t;
	ps->why = why;
	ps->why_size = why_size;
	while (good && text < stop) {
		char *line;

		eol = memchr(text, '\n', stop - text);
		ps->line++;
		if (eol == NULL)
			return wrong(ps, "cut off");
		line = strndup(text, eol - text);
		if (line == NULL)
			abort();
		ps->p = line;
		good = strlen(line) == (size_t)(eol - text)
			   ? parse_line(ps)
			   : wrong(ps, "not text");
		free(line);
		text = eol + 1;
	}
	if (good && !ps->ended)
		good = wrong(ps, "no 'end'");
	return good;
}

void
trace_sector(uint32_t content, uint8_t *sector)
{
	uint64_t x = content * UINT64_C(0x9e3779b97f4a7c15);
	unsigned i;

	memset(sector, 0, TRACE_SECTOR);
	for (i = 0; content != 0 && i < TRACE_SECTOR; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(sector + i, &x, sizeof(x));
	}
}

void
trace_put(const struct trace_data *data, uint8_t *to)
{
	size_t i;

	if (data->content == NULL && data->len > 0)
		memcpy(to, data->bytes, data->len);
	else
		for (i = 0; i < data->len / TRACE_SECTOR; i++)
			trace_sector(data->content[i], to + i * TRACE_SECTOR);
}

bool
trace_same(const struct trace_data *data, const uint8_t *with)
{
	uint8_t sector[TRACE_SECTOR];
	size_t i;

	if (data->content == NULL)
		return data->len == 0 ||
		       memcmp(with, data->bytes, data->len) == 0;
	for (i = 0; i < data->len / TRACE_SECTOR; i++) {
		trace_sector(data->content[i], sector);
		if (memcmp(with + i * TRACE_SECTOR, sector, TRACE_SECTOR) != 0)
			return false;
	}
	return true;
}
