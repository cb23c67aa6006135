// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "mem.h"

#define THP_SYS		"/sys/kernel/mm/transparent_hugepage/"
#define NODE_SYS	"/sys/devices/system/node/"
#define SIZES		24	/* of THP, more than any architecture has */
#define KPF_HEAD	(UINT64_C(1) << 15)
#define KPF_TAIL	(UINT64_C(1) << 16)

const char *const mem_counters[] = {
	"numa_pte_updates", "numa_huge_pte_updates",
	"numa_hint_faults", "numa_hint_faults_local", "numa_pages_migrated",
	"pgmigrate_success", "pgmigrate_fail",
	"thp_migration_success", "thp_migration_fail", "thp_migration_split",
	"thp_split_page", "thp_split_pmd", "thp_fault_alloc", NULL,
};

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

long mem_number(const char *name, const char *text, long min)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < min)
		die("%s: '%s' is not a number of at least %ld", name, text, min);
	return n;
}

size_t mem_base_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

size_t mem_thp_size(void)
{
	const char *path = THP_SYS "hpage_pmd_size";
	FILE *f = fopen(path, "r");
	size_t size;

	if (!f || fscanf(f, "%zu", &size) != 1)
		die("cannot read %s: the kernel needs TRANSPARENT_HUGEPAGE", path);
	fclose(f);
	return size;
}

size_t mem_smaps(int pid, const char *field)
{
	char path[64], line[256], name[64];
	size_t kib, sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), pid ? "/proc/%d/smaps" : "/proc/self/smaps", pid);
	f = fopen(path, "r");
	if (!f)
		die("cannot read %s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^:]: %zu kB", name, &kib) == 2 &&
		    !strcmp(name, field))
			sum += kib;
	fclose(f);
	return sum << 10;
}

char *mem_map_thp(size_t size)
{
	size_t thp = mem_thp_size();
	char *map, *area;

	map = mmap(NULL, size + thp, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		die("mmap of %zu bytes: %s", size + thp, strerror(errno));
	area = (char *)(((uintptr_t)map + thp - 1) & ~(thp - 1));
	if (area > map)
		munmap(map, area - map);
	munmap(area + size, map + thp - area);
	if (madvise(area, size, MADV_HUGEPAGE))
		die("MADV_HUGEPAGE: %s", strerror(errno));
	return area;
}

char *mem_map_pages(size_t size, size_t page)
{
	char *area = mem_map_thp(size);

	if (page == mem_base_size() && madvise(area, size, MADV_NOHUGEPAGE))
		die("MADV_NOHUGEPAGE: %s", strerror(errno));
	return area;
}

/* What the sizes' files said before, and in which process to put it back. */
static struct size_file {
	char path[300], word[32];
} size_files[SIZES];
static int nr_size_files, allowed_by;

static bool put_word(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, word, strlen(word)) == (ssize_t)strlen(word);

	close(fd);
	return ok;
}

void mem_put_back(void)
{
	for (int i = 0; i < nr_size_files && getpid() == allowed_by; i++)
		put_word(size_files[i].path, size_files[i].word);
}

/*
 * The file of a size, and the word of it that is in brackets; false: there is
 * none.  Later kernels have a size of page cache only: no anonymous page has it.
 */
static bool remember(const char *size)
{
	struct size_file *s = &size_files[nr_size_files];
	char line[128] = "", *word;
	FILE *f;

	snprintf(s->path, sizeof(s->path), THP_SYS "%s/enabled", size);
	f = fopen(s->path, "r");
	if (!f && errno == ENOENT)
		return false;
	if (!f || !fgets(line, sizeof(line), f) || !(word = strchr(line, '[')) ||
	    sscanf(word, "[%31[^]]", s->word) != 1)
		die("cannot read %s", s->path);
	fclose(f);
	nr_size_files++;
	return true;
}

void mem_allow_pages(size_t page)
{
	DIR *dir = opendir(THP_SYS);
	bool found = page == mem_base_size();
	size_t kib;

	for (struct dirent *d; dir && (d = readdir(dir)) && nr_size_files < SIZES;)
		if (sscanf(d->d_name, "hugepages-%zukB", &kib) == 1 && remember(d->d_name))
			found |= kib == page >> 10;
	if (dir)
		closedir(dir);
	/* A kernel with THP of one size has no file for it. */
	found |= !nr_size_files && page == mem_thp_size();
	if (!found)
		die("this kernel has no pages of %zu KiB", page >> 10);
	allowed_by = getpid();
	atexit(mem_put_back);
	for (int i = 0; i < nr_size_files; i++) {
		struct size_file *s = &size_files[i];

		sscanf(s->path, THP_SYS "hugepages-%zukB", &kib);
		if (!put_word(s->path, kib == page >> 10 ? "madvise" : "never"))
			die("cannot write %s: %s", s->path, strerror(errno));
	}
}

static int open_read(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		die("cannot read %s: %s", path, strerror(errno));
	return fd;
}

/* @n words of a file of 64-bit words, from the @first on; false: not all there. */
static bool read_words(int fd, uint64_t *word, size_t n, uint64_t first)
{
	return pread(fd, word, n * sizeof(*word), first * sizeof(*word)) ==
	       (ssize_t)(n * sizeof(*word));
}

/* Is this one page, by the frames of its base pages and by their flags? */
static bool is_one_page(const uint64_t *frame, size_t n, int kpageflags)
{
	const uint64_t present = UINT64_C(1) << 63, pfn = (UINT64_C(1) << 55) - 1;
	uint64_t first = frame[0] & pfn, flags[n];

	if (!first || first % n || !read_words(kpageflags, flags, n, first))
		return false;
	for (size_t i = 0; i < n; i++) {
		uint64_t want = n == 1 ? 0 : i ? KPF_TAIL : KPF_HEAD;

		if (!(frame[i] & present) || (frame[i] & pfn) != first + i ||
		    (flags[i] & (KPF_HEAD | KPF_TAIL)) != want)
			return false;
	}
	return true;
}

size_t mem_whole(int pid, const char *area, size_t size, size_t page)
{
	size_t n = page / mem_base_size(), whole = 0;
	int pagemap, kpageflags = open_read("/proc/kpageflags");
	uint64_t frame[n];
	char path[64];

	snprintf(path, sizeof(path), pid ? "/proc/%d/pagemap" : "/proc/self/pagemap", pid);
	pagemap = open_read(path);
	for (size_t at = 0; at < size; at += page) {
		if (!read_words(pagemap, frame, n, (uintptr_t)(area + at) / mem_base_size()))
			die("cannot read %s: %s", path, strerror(errno));
		if (is_one_page(frame, n, kpageflags))
			whole += page;
	}
	close(pagemap);
	close(kpageflags);
	return whole;
}

void mem_hint_only(const char *area)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512], access;
	uintptr_t from, to;

	if (!f)
		die("cannot read /proc/self/maps: %s", strerror(errno));
	/* The scanner skips what it cannot write and what has a policy. */
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %*c%c", &from, &to, &access) == 3 &&
		    access == 'w' && from != (uintptr_t)area &&
		    syscall(SYS_mbind, from, to - from, MPOL_PREFERRED, NULL, 0, 0))
			die("mbind of %lx-%lx: %s", from, to, strerror(errno));
	fclose(f);
}

static void policy(int node, int *mode, unsigned long *mask)
{
	if (node >= MEM_NODES)
		die("node %d: at most %d nodes", node, MEM_NODES);
	*mode = node < 0 ? MPOL_DEFAULT : MPOL_BIND;
	*mask = node < 0 ? 0 : 1ul << node;
}

/* The kernel reads one bit less than it is told. */
#define MASK_BITS	(MEM_NODES + 1)

void mem_bind(void *addr, size_t size, int node)
{
	unsigned long mask;
	int mode;

	policy(node, &mode, &mask);
	if (syscall(SYS_mbind, addr, size, mode, mask ? &mask : NULL,
		    mask ? MASK_BITS : 0, 0))
		die("mbind to node %d: %s", node, strerror(errno));
}

void mem_bind_thread(int node)
{
	unsigned long mask;
	int mode;

	policy(node, &mode, &mask);
	if (syscall(SYS_set_mempolicy, mode, mask ? &mask : NULL,
		    mask ? MASK_BITS : 0))
		die("set_mempolicy to node %d: %s", node, strerror(errno));
}

void mem_nodes(int pid, void **addr, int *node, size_t n)
{
	if (syscall(SYS_move_pages, pid, n, addr, NULL, node, 0))
		die("move_pages, asking where pages are: %s", strerror(errno));
}

int mem_node(void *addr)
{
	int node;

	mem_nodes(0, &addr, &node, 1);
	return node;
}

void mem_move(void *addr, int node)
{
	int got = -1;

	if (syscall(SYS_move_pages, 0, 1, &addr, &node, &got, MPOL_MF_MOVE) || got != node)
		die("move_pages to node %d: %s", node, got < -1 ? strerror(-got) : strerror(errno));
}

/* The numbers of a list such as 0-1,4 that a file holds; how many. */
static int read_list(const char *path, cpu_set_t *set)
{
	FILE *f = fopen(path, "r");
	int first, last, n;

	if (!f)
		die("cannot read %s: %s", path, strerror(errno));
	CPU_ZERO(set);
	while ((n = fscanf(f, "%d-%d", &first, &last)) > 0) {
		for (last = n == 2 ? last : first; first <= last; first++)
			CPU_SET(first, set);
		if (fgetc(f) != ',')
			break;
	}
	fclose(f);
	return CPU_COUNT(set);
}

static int cpus_of(int node, cpu_set_t *set)
{
	char path[64];

	snprintf(path, sizeof(path), NODE_SYS "node%d/cpulist", node);
	if (access(path, F_OK))
		die("cannot read %s: there is no node %d", path, node);
	return read_list(path, set);
}

bool mem_has_node(int node)
{
	char path[64];

	snprintf(path, sizeof(path), NODE_SYS "node%d", node);
	return !access(path, F_OK);
}

int mem_node_cpus(int node)
{
	cpu_set_t set;

	return mem_has_node(node) ? cpus_of(node, &set) : 0;
}

void mem_run_on(int node)
{
	cpu_set_t set;

	cpus_of(node, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot run on the CPUs of node %d: %s", node, strerror(errno));
}

void mem_run_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot run on CPU %d: %s", cpu, strerror(errno));
}

int mem_beside(int node, int nodes, bool far)
{
	int distance[MEM_NODES], found = -1;
	cpu_set_t memory;
	char path[64];
	FILE *f;

	read_list(NODE_SYS "has_memory", &memory);
	snprintf(path, sizeof(path), NODE_SYS "node%d/distance", node);
	f = fopen(path, "r");
	for (int i = 0; i < nodes; i++)
		if (mem_has_node(i) && (!f || fscanf(f, "%d", &distance[i]) != 1))
			die("cannot read %d distances from %s", nodes, path);
	fclose(f);
	/* From @node on, so that among equals each node is the farthest of one other. */
	for (int i = far; i < nodes; i++) {
		int other = (node + i) % nodes;

		if (CPU_ISSET(other, &memory) &&
		    (found < 0 || (far ? distance[other] > distance[found] :
					 distance[other] < distance[found])))
			found = other;
	}
	if (found < 0)
		die("no other node than %d has memory", node);
	return found;
}

void mem_vmstat(struct mem_counter *c)
{
	char name[64];
	long long value;
	FILE *f = fopen("/proc/vmstat", "r");

	if (!f)
		die("cannot read /proc/vmstat: %s", strerror(errno));
	for (int i = 0; mem_counters[i]; i++)
		c[i] = (struct mem_counter){ mem_counters[i], -1 };
	while (fscanf(f, "%63s %lld", name, &value) == 2)
		for (int i = 0; mem_counters[i]; i++)
			if (!strcmp(name, mem_counters[i]))
				c[i].value = value;
	fclose(f);
}

bool mem_vmstat_now(const char *const *names, long long *value, int n)
{
	static char text[1 << 15] = "\n";
	static int fd = -1;
	size_t size = 1;
	ssize_t more;

	if (fd < 0)
		fd = open_read("/proc/vmstat");
	/* It comes page by page. */
	while ((more = pread(fd, text + size, sizeof(text) - 1 - size, size - 1)) > 0)
		size += more;
	if (more < 0)
		die("cannot read /proc/vmstat: %s", strerror(errno));
	text[size] = 0;
	for (int i = 0; i < n; i++) {
		char line[64], *at;

		snprintf(line, sizeof(line), "\n%s ", names[i]);
		at = strstr(text, line);
		if (!at)
			return false;
		value[i] = strtoll(at + strlen(line), NULL, 10);
	}
	return true;
}

void mem_print_delta(const struct mem_counter *from, const struct mem_counter *to)
{
	for (int i = 0; mem_counters[i]; i++) {
		printf("%s\"%s\": ", i ? ", " : "{", mem_counters[i]);
		if (to[i].value < 0)
			printf("null");
		else
			printf("%lld", to[i].value - from[i].value);
	}
	putchar('}');
}

double mem_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
