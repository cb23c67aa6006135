// SPDX-License-Identifier: GPL-2.0
/*
 * meter: a plugin for QEMU's TCG that counts to which node each load and store
 * of a guest goes, and which of them miss a cache.
 *
 * It counts between the markers of bench/lib/marks.c and writes one line of
 * JSON for each such phase.  README.md says what is counted and what is not.
 *
 * Arguments: out=FILE cache=KiB ways=N slice=ms, and one node=CPUS:MiB for each
 * node, in order.  harness/meter.py gives them.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <qemu-plugin.h>

#include "../lib/marks.h"

#define MAX_NODES	8
#define MAX_SLICES	16384		/* the last one takes all that comes after */
#define LINE_SHIFT	6
#define TICK		512		/* accesses of a vCPU between looks at the clock */
#define NO_LINE		UINT64_MAX
#define NO_NODE		-1

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { USER, KERNEL, MODES };
enum { LOAD, STORE, OPS };

struct count {
	uint64_t all, miss;
};

struct slice {
	struct count count[MAX_NODES][MODES][OPS];
};

/* A vCPU in a phase: nobody else writes this. */
struct vcpu {
	struct slice *slice;	/* the one that time has come to */
	uint64_t line;		/* virtual, of the access before this one */
	int node;		/* ... and where it was, or NO_NODE */
	unsigned int left;	/* accesses before the next look at the clock */
	uint64_t other;		/* accesses to what is not the memory of a node */
	uint32_t *lines;	/* the cache: sets of lines, the last used first */
	struct slice *slices;
	uint64_t used;		/* slices */
} __attribute__((aligned(64)));

struct phase {
	char name[MARK_LENGTH + 1];
	uint64_t began;		/* ns */
	struct vcpu vcpu[];
};

/* Half of an address of QEMU's: [from, to) are a node's memory. */
static struct {
	int cpus;
	uint64_t from, to;
} nodes[MAX_NODES];
static int nr_nodes;

static int nr_cpus;
static uint64_t cache_kib = 1024, ways = 16, slice_ms = 100;
static uint64_t sets;		/* a power of two, or 0: no cache */
static uint64_t slice_ns;
static FILE *out;

static struct phase *running;	/* NULL: nothing is counted */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static int node_of(uint64_t addr)
{
	for (int i = 0; i < nr_nodes; i++)
		if (addr >= nodes[i].from && addr < nodes[i].to)
			return i;
	return NO_NODE;
}

/* Where an access went; NO_NODE: a device, or memory of the firmware. */
static int node_accessed(qemu_plugin_meminfo_t info, uint64_t vaddr, uint64_t *addr)
{
	struct qemu_plugin_hwaddr *hw = qemu_plugin_get_hwaddr(info, vaddr);

	if (!hw || qemu_plugin_hwaddr_is_io(hw))
		return NO_NODE;
	*addr = qemu_plugin_hwaddr_phys_addr(hw);
	return node_of(*addr);
}

/* Look a line up in the cache, and have it there: was it? */
static bool cached(struct vcpu *v, uint64_t line)
{
	uint32_t *set, tag = line + 1;	/* 0 is no line */
	uint64_t i = 0;
	bool hit;

	if (!sets)
		return false;
	set = v->lines + (line & (sets - 1)) * ways;
	while (i < ways && set[i] != tag)
		i++;
	hit = i < ways;
	memmove(set + 1, set, (hit ? i : ways - 1) * sizeof(*set));
	set[0] = tag;
	return hit;
}

/* Go to the slice that it is time for. */
static void tick(struct phase *p, struct vcpu *v)
{
	uint64_t i = (now() - p->began) / slice_ns;

	if (i >= MAX_SLICES)
		i = MAX_SLICES - 1;
	v->slice = &v->slices[i];
	__atomic_store_n(&v->used, i + 1, __ATOMIC_RELAXED);
	v->left = TICK;
}

/* One writer, and a reader at the end of the phase. */
static void add_one(uint64_t *n)
{
	__atomic_store_n(n, *n + 1, __ATOMIC_RELAXED);
}

static void count(struct phase *p, struct vcpu *v, qemu_plugin_meminfo_t info,
		  uint64_t vaddr, bool kernel)
{
	bool hit = sets && vaddr >> LINE_SHIFT == v->line;
	struct count *c;
	uint64_t addr;

	if (!--v->left)
		tick(p, v);
	/*
	 * The line before this one still is where it was: what moves a page
	 * interrupts this vCPU, which then accesses something else.
	 */
	if (vaddr >> LINE_SHIFT != v->line) {
		v->line = vaddr >> LINE_SHIFT;
		v->node = node_accessed(info, vaddr, &addr);
		hit = v->node != NO_NODE && cached(v, addr >> LINE_SHIFT);
	}
	if (v->node == NO_NODE) {
		add_one(&v->other);
		return;
	}
	c = &v->slice->count[v->node][kernel][qemu_plugin_mem_is_store(info)];
	add_one(&c->all);
	if (!hit)
		add_one(&c->miss);
}

static void print_ops(const struct vcpu *v, const char *name, int op, bool miss,
		      int mode)
{
	fprintf(out, "\"%s\": [", name);
	for (int n = 0; n < nr_nodes; n++) {
		uint64_t sum = 0;

		for (uint64_t s = 0; s < v->used; s++) {
			const struct count *c = &v->slices[s].count[n][mode][op];

			sum += miss ? c->miss : c->all;
		}
		fprintf(out, "%s%" PRIu64, n ? ", " : "", sum);
	}
	fputc(']', out);
}

static void print_mode(const struct vcpu *v, const char *name, int mode)
{
	fprintf(out, "\"%s\": {", name);
	print_ops(v, "loads", LOAD, false, mode);
	fputs(", ", out);
	print_ops(v, "stores", STORE, false, mode);
	fputs(", ", out);
	print_ops(v, "load_misses", LOAD, true, mode);
	fputs(", ", out);
	print_ops(v, "store_misses", STORE, true, mode);
	fputc('}', out);
}

/* The misses of a vCPU in a slice, by node. */
static void print_slice(const struct vcpu *v, uint64_t i)
{
	for (int n = 0; n < nr_nodes; n++) {
		const struct count (*c)[OPS] = v->slices[i].count[n];

		fprintf(out, "%s%" PRIu64, n ? ", " : "[",
			c[USER][LOAD].miss + c[USER][STORE].miss +
			c[KERNEL][LOAD].miss + c[KERNEL][STORE].miss);
	}
	fputc(']', out);
}

static void print_slices(const struct phase *p)
{
	uint64_t used = 0;

	for (int i = 0; i < nr_cpus; i++)
		if (p->vcpu[i].used > used)
			used = p->vcpu[i].used;
	fputs("\"slices\": [", out);
	for (uint64_t s = 0; s < used; s++) {
		fputs(s ? ", [" : "[", out);
		for (int i = 0; i < nr_cpus; i++) {
			fputs(i ? ", " : "", out);
			print_slice(&p->vcpu[i], s);
		}
		fputc(']', out);
	}
	fputc(']', out);
}

static void print_phase(const struct phase *p, double seconds)
{
	fprintf(out, "{\"phase\": \"%s\", \"seconds\": %.6f, \"cache_kib\": %" PRIu64
		", \"ways\": %" PRIu64 ", \"slice_ms\": %" PRIu64 ", \"nodes\": %d, \"cpus\": [",
		p->name, seconds, cache_kib, ways, slice_ms, nr_nodes);
	for (int n = 0, cpu = 0; n < nr_nodes; n++)
		for (int i = 0; i < nodes[n].cpus; i++, cpu++) {
			const struct vcpu *v = &p->vcpu[cpu];

			fprintf(out, "%s{\"node\": %d, ", cpu ? ", " : "", n);
			print_mode(v, "user", USER);
			fputs(", ", out);
			print_mode(v, "kernel", KERNEL);
			fprintf(out, ", \"other\": %" PRIu64 "}", v->other);
		}
	fputs("], ", out);
	print_slices(p);
	fputs("}\n", out);
	fflush(out);
}

/*
 * Of an ended phase nothing is freed: another vCPU may be about to count its
 * last access.  What it never touched takes no memory.
 */
static void phase_begin(const char *name)
{
	struct phase *p = aligned_alloc(64, sizeof(*p) + nr_cpus * sizeof(p->vcpu[0]));

	if (!p)
		abort();
	memset(p, 0, sizeof(*p) + nr_cpus * sizeof(p->vcpu[0]));
	strcpy(p->name, name);
	p->began = now();
	for (int i = 0; i < nr_cpus; i++) {
		struct vcpu *v = &p->vcpu[i];

		v->slices = calloc(MAX_SLICES, sizeof(*v->slices));
		v->lines = calloc(sets * ways + 1, sizeof(*v->lines));
		if (!v->slices || !v->lines)
			abort();
		v->line = NO_LINE;
		v->left = 1;		/* the first access looks at the clock */
	}
	__atomic_store_n(&running, p, __ATOMIC_RELEASE);
}

/* A phase that has no end of its own is none. */
static void phase_lost(const struct phase *p)
{
	if (p) {
		fprintf(out, "{\"unfinished\": \"%s\"}\n", p->name);
		fflush(out);
	}
}

static void phase_end(void)
{
	struct phase *p = running;

	__atomic_store_n(&running, NULL, __ATOMIC_RELEASE);
	if (p)
		print_phase(p, (now() - p->began) / 1e9);
}

/* The guest says that this store went to a node: is that so by nodes[]? */
static void check_node(int said, qemu_plugin_meminfo_t info, uint64_t vaddr)
{
	uint64_t addr = 0;
	int node = node_accessed(info, vaddr, &addr);

	if (node == said)
		return;
	fprintf(out, "{\"error\": \"the guest's nodes are not as the plugin was told: memory of "
		"node %d is at 0x%" PRIx64 ", where ", said, addr);
	if (node == NO_NODE)
		fputs("no node should be\"}\n", out);
	else
		fprintf(out, "node %d should be\"}\n", node);
	fflush(out);
}

/* A store to the page of the markers: see marks.h. */
static void mark(qemu_plugin_meminfo_t info, uint64_t vaddr)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char name[MARK_LENGTH + 1];
	static unsigned int length;
	uint64_t byte = vaddr - MARK_PAGE;

	pthread_mutex_lock(&lock);
	if (byte >= MARK_NODE) {
		check_node(byte - MARK_NODE, info, vaddr);
	} else if (byte == MARK_END && length) {
		name[length] = 0;
		length = 0;
		phase_lost(running);
		phase_begin(name);
	} else if (byte == MARK_END) {
		phase_end();
	} else if (length < MARK_LENGTH) {
		name[length++] = byte >= ' ' && byte <= '~' && byte != '"' && byte != '\\' ?
				 byte : '?';
	}
	pthread_mutex_unlock(&lock);
}

/* Each load and store of the guest comes here; @kernel: of its instruction. */
static void accessed(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr,
		     void *kernel)
{
	struct phase *p = __atomic_load_n(&running, __ATOMIC_ACQUIRE);

	if (vaddr - MARK_PAGE < MARK_SIZE) {
		if (qemu_plugin_mem_is_store(info))
			mark(info, vaddr);
		return;
	}
	/*
	 * What a CPU writes to the kernel's stack at an interrupt may be handed
	 * in with the user's instruction before it.
	 */
	if (p)
		count(p, &p->vcpu[cpu], info, vaddr, kernel || vaddr >> 63);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uintptr_t kernel = qemu_plugin_insn_vaddr(insn) >> 63;

		qemu_plugin_register_vcpu_mem_cb(insn, accessed, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_RW, (void *)kernel);
	}
}

static void ended(qemu_plugin_id_t id, void *unused)
{
	(void)id;
	(void)unused;
	phase_lost(running);
	fclose(out);
}

/*
 * What QEMU 7.2 calls the physical address of RAM is the sum of two offsets,
 * each that of all memory before it where a machine has one block of RAM for
 * each node: of the block among all blocks, and of its region in the memory of
 * the machine.  So the nodes lie apart by the size of those before them; that
 * it is so is checked by what the guest says, see check_node().
 */
static bool add_node(const char *text)
{
	static uint64_t before;
	uint64_t size;
	unsigned long mib;
	int cpus;

	if (nr_nodes == MAX_NODES || sscanf(text, "%d:%lu", &cpus, &mib) != 2 || cpus < 0)
		return false;
	size = (uint64_t)mib << 20;
	nodes[nr_nodes].cpus = cpus;
	nodes[nr_nodes].from = 2 * before;
	nodes[nr_nodes].to = 2 * before + size;
	before += size;
	nr_nodes++;
	nr_cpus += cpus;
	/* Lines are numbered by 32 bits. */
	return 2 * before < UINT64_C(1) << (32 + LINE_SHIFT);
}

static bool argument(const char *arg)
{
	const char *value = strchr(arg, '=');
	size_t n = value ? value++ - arg : 0;

	if (n == 3 && !strncmp(arg, "out", n))
		return (out = fopen(value, "w"));
	if (n == 4 && !strncmp(arg, "node", n))
		return add_node(value);
	if (n == 5 && !strncmp(arg, "cache", n))
		return sscanf(value, "%" SCNu64, &cache_kib) == 1;
	if (n == 4 && !strncmp(arg, "ways", n))
		return sscanf(value, "%" SCNu64, &ways) == 1 && ways;
	if (n == 5 && !strncmp(arg, "slice", n))
		return sscanf(value, "%" SCNu64, &slice_ms) == 1 && slice_ms;
	return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!argument(argv[i])) {
			fprintf(stderr, "meter: cannot use %s\n", argv[i]);
			return -1;
		}
	sets = (cache_kib << 10 >> LINE_SHIFT) / ways;
	slice_ns = slice_ms * 1000000;
	if (!out || sets & (sets - 1) || (cache_kib && !sets)) {
		fprintf(stderr, "meter: wants out= and a cache whose sets are a power of two\n");
		return -1;
	}
	if (!info->system_emulation || info->system.max_vcpus != nr_cpus) {
		fprintf(stderr, "meter: the nodes have %d CPUs, the machine has not\n", nr_cpus);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
