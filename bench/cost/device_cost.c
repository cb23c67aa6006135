// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to migrate a THP's worth of memory to the private memory of a
 * device (test_hmm) and back, in guest instructions: as one THP, and as base
 * pages.
 *
 * Runs in a guest with one CPU under QEMU's -icount shift=0,sleep=off, where
 * the clock counts instructions.  The module is loaded, its first device is
 * the argument.
 *
 * device_cost [-n ROUNDS] DEVICE
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "window.h"

/* The ABI of lib/test_hmm_uapi.h, here and in kernels from 6.19 on */
struct hmm_cmd {
	uint64_t addr, ptr, npages, cpages, faults;
};
#define TO_DEVICE	_IOWR('H', 0x02, struct hmm_cmd)
#define TO_SYSTEM	_IOWR('H', 0x03, struct hmm_cmd)

static size_t thp;

static uint64_t migrate(struct window *w, int device, unsigned long command, char *p,
			char *data)
{
	struct hmm_cmd cmd = {
		.addr = (uintptr_t)p,
		.ptr = (uintptr_t)data,
		.npages = thp / mem_base_size(),
	};
	uint64_t t;
	int failed;

	window_begin(w);
	failed = ioctl(device, command, &cmd);
	t = window_end(w);
	if (failed)
		die("ioctl %#lx: %s", command, strerror(errno));
	if (cmd.cpages != cmd.npages)
		die("only %llu of %llu pages were migrated",
		    (unsigned long long)cmd.cpages, (unsigned long long)cmd.npages);
	return t;
}

static char *fill(int huge, int seed)
{
	char *p = mem_map_thp(thp);

	if (madvise(p, thp, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("madvise: %s", strerror(errno));
	for (size_t o = 0; o < thp; o += sizeof(long))
		*(long *)(p + o) = seed + o;
	if (mem_smaps(0, "AnonHugePages") != (huge ? thp : 0))
		die("%s", huge ? "no THP" : "a THP without being asked for");
	return p;
}

static void check(const char *p, int seed)
{
	for (size_t o = 0; o < thp; o += sizeof(long))
		if (*(const long *)(p + o) != (long)(seed + o))
			die("data lost at %zu", o);
}

static void print(const char *name, const uint64_t *value, size_t n)
{
	printf(", \"%s\": [", name);
	for (size_t i = 0; i < n; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)value[i]);
	printf("]");
}

int main(int argc, char **argv)
{
	/* The number of a window is that of its round, the first one left out */
	struct window windows[2][2] = {
		{ { .name = "base_to_device" }, { .name = "base_to_system" } },
		{ { .name = "thp_to_device" }, { .name = "thp_to_system" } },
	};
	size_t n = 16;
	uint64_t *value[2][2];
	char *area, *data;
	int c, device;

	while ((c = getopt(argc, argv, "n:")) != -1) {
		if (c != 'n')
			return 2;
		n = mem_number("-n", optarg, 1);
	}
	if (optind != argc - 1)
		die("which device?");
	device = open(argv[optind], O_RDWR);
	if (device < 0)
		die("%s: %s", argv[optind], strerror(errno));

	thp = mem_thp_size();
	/* Not THP, to be told apart in smaps */
	data = mmap(NULL, thp, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (data == MAP_FAILED)
		die("mmap: %s", strerror(errno));

	for (int huge = 0; huge < 2; huge++) {
		value[huge][0] = calloc(n, sizeof(uint64_t));
		value[huge][1] = calloc(n, sizeof(uint64_t));
		/* The first round is to warm up */
		for (size_t i = 0; i <= n; i++) {
			struct window *w = windows[huge];
			uint64_t there, back;

			area = fill(huge, i);
			there = migrate(&w[0], device, TO_DEVICE, area, data);
			back = migrate(&w[1], device, TO_SYSTEM, area, data);
			check(data, i);
			check(area, i);
			if (mem_smaps(0, "AnonHugePages") != (huge ? thp : 0))
				die("the THP did not stay whole");
			munmap(area, thp);
			if (!i)
				continue;
			value[huge][0][i - 1] = there;
			value[huge][1][i - 1] = back;
		}
	}

	printf("{\"test\": \"device_cost\", \"thp_bytes\": %zu, \"page_bytes\": %zu",
	       thp, mem_base_size());
	for (int huge = 0; huge < 2; huge++)
		for (int back = 0; back < 2; back++)
			print(windows[huge][back].name, value[huge][back], n);
	puts("}");
	return 0;
}
