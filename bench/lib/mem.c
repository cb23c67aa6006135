// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "mem.h"

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
	const char *path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
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

int mem_node_cpus(int node)
{
	char path[64];
	int first, last, n, cpus = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	f = fopen(path, "r");
	if (!f)
		die("cannot read %s: there is no node %d", path, node);
	while ((n = fscanf(f, "%d-%d", &first, &last)) > 0) {
		cpus += n == 2 ? last - first + 1 : 1;
		if (fgetc(f) != ',')
			break;
	}
	fclose(f);
	return cpus;
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
