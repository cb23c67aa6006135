// SPDX-License-Identifier: GPL-2.0
/*
 * numa01, numa01_THREAD_ALLOC, numa02 and numa02_SMT: do NUMA balancing and
 * the scheduler bring tasks and their pages together, and what does it cost?
 *
 * All memory starts on one node.  Threads then write it over and over, free to
 * run anywhere, while this process looks a few times a second where the pages
 * are and where the threads ran.  The bounds to compare that with bind both, as
 * well or as badly as can be.  README.md says what is the same as in
 * autonuma-benchmark and what is not.
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../lib/marks.h"
#include "../lib/mem.h"

#define PROCESSES	2
#define THREADS		512	/* of one process */
#define NODES		16	/* their numbers are below it */
#define SAMPLES		4096
#define LOOKUPS		512	/* pages of a process that a sample looks at */
#define LINE		64	/* bytes: what is checked at the end, and written with -l */
#define FAULTS		3	/* counters of a sample */
#define CONVERGED	0.9	/* share of local pages ... */
#define HOLD		1.0	/* ... kept for this many seconds */

static const struct workload {
	const char *name;
	int processes;
	int divide;		/* threads of a process: CPUs / divide */
	bool private;		/* a thread writes its own slice only */
	bool by_threads;	/* first touch by every thread, else by the main one */
	long mib;		/* of one process */
} workloads[] = {
	{ "numa01",              2, 2, false, true,  128 },
	{ "numa01_THREAD_ALLOC", 2, 2, true,  true,  128 },
	{ "numa02",              1, 1, true,  false, 256 },
	{ "numa02_SMT",          1, 2, true,  false, 256 },
};

struct thread {
	int id;
	int home;		/* node that it is bound to, in a bound run */
	int memory;		/* node that its part of the memory starts on */
	char *area;		/* what it writes */
	size_t size;
	atomic_uint done[NODES];	/* THP written while it ran on each node */
	atomic_int node;
	long passes;
	unsigned char value;	/* what the last pass wrote */
	double ended;		/* when it had written all, of mem_seconds() */
};

struct process {
	int pid;
	char *area;
	size_t anon_huge;	/* at the end */
	size_t whole;		/* ... in pages of the size that was asked for */
	size_t pages[NODES];	/* base pages at the end */
	double share;		/* of them that are on the node of their last writer */
	struct thread thread[THREADS];
};

/* Between the processes. */
static struct shared {
	pthread_barrier_t placed, go, over;
	sem_t ended;		/* posted by each thread */
	struct process process[PROCESSES];
} *shared;

static const char *const bounds[] = { NULL, "hard", "inverse" };
enum { FREE, HARD, INVERSE };	/* of bounds[] */

/* How this run was asked for. */
static struct {
	const struct workload *w;
	int bound;
	bool lines;		/* only one word of each line is written */
	int cpus;
	int threads;		/* of a process */
	int nodes;		/* one more than the highest number of one */
	int start;		/* -1: none, the run is bound */
	size_t size;		/* of a process */
	size_t page;		/* what holds it; 0: THP, and nothing is set for it */
	size_t stride;		/* between the pages that a sample looks at */
	long passes;
	double seconds;		/* time box instead of passes, when above 0 */
	long warm;
	long slice_ms;
	double began;
} run;

static struct sample {
	double time;
	double share[PROCESSES];
	double all;
	size_t pages[PROCESSES][NODES];	/* of those looked at */
	long long faults[FAULTS];	/* since the start */
} samples[SAMPLES];

static const char *const faults[FAULTS] = {
	"numa_hint_faults", "numa_hint_faults_local", "numa_pages_migrated",
};
static long long faults_before[FAULTS];
static bool has_faults;

static size_t thp;

static int this_node(void)
{
	unsigned int node;

	if (getcpu(NULL, &node))
		die("getcpu: %s", strerror(errno));
	return node < NODES ? node : 0;
}

/*
 * memset() in 16-byte stores: an emulated guest takes string instructions
 * byte by byte.
 */
typedef unsigned char block __attribute__((vector_size(16), may_alias));

static void fill_all(char *area, size_t size, unsigned char value)
{
	block *p = (block *)area, *end = (block *)(area + size);
	block v = (block){ 0 } + value;

	for (; p < end; p++) {
		*p = v;
		asm volatile("" ::: "memory");
	}
}

/* One word of each line: as much memory traffic, in fewer instructions. */
static void fill_lines(char *area, size_t size, unsigned char value)
{
	for (size_t at = 0; at < size; at += LINE)
		*(volatile uint64_t *)(area + at) = value * UINT64_C(0x0101010101010101);
}

static void fill(char *area, size_t size, unsigned char value)
{
	if (run.lines)
		fill_lines(area, size, value);
	else
		fill_all(area, size, value);
}

static void one_pass(struct thread *t, unsigned char value)
{
	for (size_t at = 0; at < t->size; at += thp) {
		int node = this_node();

		atomic_store_explicit(&t->node, node, memory_order_relaxed);
		fill(t->area + at, thp, value);
		atomic_fetch_add_explicit(&t->done[node], 1, memory_order_relaxed);
	}
	t->value = value;
}

/*
 * In a bound run the threads are spread over the CPUs in the order of the nodes:
 * two processes get a half of the nodes each, the threads of one all of them.
 * @thread counts through all processes.
 */
static int home_of(int thread)
{
	int cpu = thread * run.cpus / (run.w->processes * run.threads), node = 0;

	for (; cpu >= mem_node_cpus(node); node++)
		cpu -= mem_node_cpus(node);
	return node;
}

/* Who writes what, where it is to be and, in a bound run, who runs where. */
static void plan(struct process *p)
{
	size_t slice = run.size / run.threads;
	int first = (p - shared->process) * run.threads;

	for (int i = 0; i < run.threads; i++) {
		struct thread *t = &p->thread[i];

		t->id = i;
		t->area = p->area + (run.w->private ? i * slice : 0);
		t->size = run.w->private ? slice : run.size;
		t->memory = run.start;
		if (!run.bound)
			continue;
		t->home = home_of(first + i);
		t->memory = mem_beside(t->home, run.nodes, run.bound == INVERSE);
		mem_bind(p->area + i * slice, slice, t->memory);
	}
}

/*
 * Everything of this process to where it starts, and written @warm times.  The
 * policy stays until the threads go, who inherit it: so long as it does, the
 * scanner leaves the memory, and no fault is counted that was prepared before.
 * In a bound run the memory itself has the policy, and keeps it.
 */
static void place(struct process *p)
{
	if (!run.bound)
		mem_bind_thread(run.start);
	for (long i = 0; i < run.warm; i++)
		fill(p->area, run.size, 0);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	struct process *p = (void *)((char *)(t - t->id) - offsetof(struct process, thread));
	double began;

	if (run.bound)
		mem_run_on(t->home);
	if (run.w->by_threads)
		place(p);
	pthread_barrier_wait(&shared->placed);
	pthread_barrier_wait(&shared->go);
	if (!run.bound)
		mem_bind_thread(-1);
	began = mem_seconds();
	while (run.seconds > 0 ? mem_seconds() - began < run.seconds
			       : t->passes < run.passes)
		one_pass(t, 1 + t->passes++ % 255);
	t->ended = mem_seconds();
	sem_post(&shared->ended);
	return NULL;
}

/* Each byte looked at must be what a thread that writes there wrote last. */
static void check_data(const struct process *p)
{
	for (size_t at = 0; at < run.size; at += LINE) {
		bool ok = false;

		for (int i = 0; i < run.threads && !ok; i++) {
			const struct thread *t = &p->thread[i];
			size_t first = t->area - p->area;

			ok = at >= first && at < first + t->size &&
			     (unsigned char)p->area[at] == t->value;
		}
		if (!ok)
			die("data lost at offset %zu: %d", at, p->area[at]);
	}
}

/* Where the base pages of a process are. */
static void count_pages(struct process *p, int pid)
{
	size_t n = run.size / mem_base_size();
	void **addr = calloc(n, sizeof(*addr));
	int *node = calloc(n, sizeof(*node));

	if (!addr || !node)
		die("out of memory");
	for (size_t i = 0; i < n; i++)
		addr[i] = p->area + i * mem_base_size();
	mem_nodes(pid, addr, node, n);
	memset(p->pages, 0, sizeof(p->pages));
	for (size_t i = 0; i < n; i++)
		if (node[i] >= 0 && node[i] < NODES)
			p->pages[node[i]]++;
	p->share = 0;
	for (int i = 0; i < run.threads; i++) {
		const struct thread *t = &p->thread[i];
		size_t first = (t->area - p->area) / mem_base_size();
		size_t slice = t->size / mem_base_size(), local = 0;

		for (size_t j = 0; j < slice; j++)
			local += node[first + j] == atomic_load(&t->node);
		p->share += (double)local / slice / run.threads;
	}
	free(addr);
	free(node);
}

static void process_main(struct process *p)
{
	pthread_t id[THREADS];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	p->area = run.page ? mem_map_pages(run.size, run.page) : mem_map_thp(run.size);
	plan(p);
	if (!run.w->by_threads)
		place(p);
	for (int i = 0; i < run.threads; i++) {
		errno = pthread_create(&id[i], NULL, thread_main, &p->thread[i]);
		if (errno)
			die("pthread_create: %s", strerror(errno));
	}
	/* It would undo the policy of the memory of a bound run. */
	if (run.page && !run.bound)
		mem_hint_only(p->area);
	pthread_barrier_wait(&shared->placed);
	for (int i = 0; i < run.threads; i++)
		pthread_join(id[i], NULL);
	/* What follows reads all memory: not before the end of what is measured. */
	pthread_barrier_wait(&shared->over);
	p->anon_huge = mem_smaps(0, "AnonHugePages");
	if (run.page)
		p->whole = mem_whole(0, p->area, run.size, run.page);
	count_pages(p, 0);
	check_data(p);
	exit(0);
}

/* All memory of a process must be where it is to start. */
static void check_nodes(struct process *p)
{
	size_t slice = run.size / run.threads / mem_base_size(), want[NODES] = { 0 };

	count_pages(p, p->pid);
	for (int i = 0; i < run.threads; i++)
		want[p->thread[i].memory] += slice;
	for (int k = 0; k < NODES; k++)
		if (p->pages[k] != want[k])
			die("%zu of %zu pages started on node %d",
			    p->pages[k], want[k], k);
}

/* Nothing is timed before all memory is whole pages on its node. */
static void check_placed(void)
{
	for (int i = 0; i < run.w->processes; i++) {
		struct process *p = &shared->process[i];
		size_t whole = run.page ? mem_whole(p->pid, p->area, run.size, run.page) :
					  mem_smaps(p->pid, "AnonHugePages");

		if (whole < run.size)
			die("%zu of %zu MiB are pages of %zu KiB: is the node large enough?",
			    whole >> 20, run.size >> 20, (run.page ?: thp) >> 10);
		check_nodes(p);
	}
}

/*
 * Share of the pages that a thread writes that are on its node; where it ran
 * on several in this slice of time, weighted by what it wrote on each.
 */
static double local_share(struct thread *t, const int *node, unsigned int *seen)
{
	size_t n = t->size / run.stride, on[NODES] = { 0 };
	double wrote = 0, local = 0;

	for (size_t i = 0; i < n; i++)
		if (node[i] >= 0 && node[i] < NODES)
			on[node[i]]++;
	for (int k = 0; k < NODES; k++) {
		unsigned int now = atomic_load(&t->done[k]);

		wrote += now - seen[k];
		local += (double)(now - seen[k]) * on[k] / n;
		seen[k] = now;
	}
	return wrote ? local / wrote : (double)on[atomic_load(&t->node)] / n;
}

static void take(struct sample *s)
{
	static unsigned int seen[PROCESSES][THREADS][NODES];
	size_t n = run.size / run.stride;
	void *addr[n];
	int node[n];

	for (int i = 0; i < run.w->processes; i++) {
		struct process *p = &shared->process[i];

		for (size_t j = 0; j < n; j++)
			addr[j] = p->area + j * run.stride;
		mem_nodes(p->pid, addr, node, n);
		for (size_t j = 0; j < n; j++)
			if (node[j] >= 0 && node[j] < NODES)
				s->pages[i][node[j]]++;
		for (int j = 0; j < run.threads; j++) {
			struct thread *t = &p->thread[j];

			s->share[i] += local_share(t, node + (t->area - p->area) / run.stride,
						   seen[i][j]) / run.threads;
		}
		s->all += s->share[i] / run.w->processes;
	}
	if (has_faults)
		mem_vmstat_now(faults, s->faults, FAULTS);
	s->time = mem_seconds() - run.began;
}

/* Wait for a thread to end, at most until the next sample is due: has one? */
static bool one_ended(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += run.slice_ms % 1000 * 1000000;
	until.tv_sec += run.slice_ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (sem_clockwait(&shared->ended, CLOCK_MONOTONIC, &until))
		if (errno != EINTR)
			return false;
	return true;
}

/*
 * Samples until the first of @all threads has ended, how many; returns when the
 * last one has.  Ahead of the threads, which leave no CPU idle; a late sample is
 * not followed by a burst.
 */
static size_t watch(int all)
{
	size_t n = 0;

	setpriority(PRIO_PROCESS, 0, -20);
	for (int left = all; left;) {
		if (one_ended())
			left--;
		else if (left == all && n < SAMPLES)
			take(&samples[n++]);
	}
	return n;
}

/* When the last thread ended. */
static double last_end(void)
{
	double last = 0;

	for (int i = 0; i < run.w->processes; i++)
		for (int j = 0; j < run.threads; j++)
			if (shared->process[i].thread[j].ended > last)
				last = shared->process[i].thread[j].ended;
	return last;
}

/* Time of the first sample from which on the share holds for HOLD; -1: none. */
static double converged(size_t n)
{
	size_t first = 0;

	for (size_t i = 0; i < n; i++) {
		if (samples[i].all < CONVERGED)
			first = i + 1;
		else if (samples[i].time - samples[first].time >= HOLD)
			return samples[first].time;
	}
	return -1;
}

static void child_ended(int sig)
{
	static const char killed[] =
		"a process was killed: is the node of its memory large enough?\n";
	int status;

	(void)sig;
	while (waitpid(-1, &status, WNOHANG) > 0) {
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			continue;
		if (WIFSIGNALED(status))	/* else it has said why itself */
			(void)!write(STDERR_FILENO, killed, sizeof(killed) - 1);
		mem_put_back();
		_exit(1);			/* takes the others along */
	}
}

static void barrier(pthread_barrier_t *b, int n)
{
	pthread_barrierattr_t a;

	pthread_barrierattr_init(&a);
	pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(b, &a, n);
}

static void print_nodes(const size_t *v, double scale)
{
	for (int k = 0; k < run.nodes; k++)
		printf("%s%g", k ? ", " : "[", v[k] * scale);
	putchar(']');
}

static void print(size_t n, double init, double seconds,
		  const struct mem_counter *from, const struct mem_counter *to)
{
	double when = converged(n), mean = 0, final = 0, mib = 1.0 / (1 << 20);
	const char *quote = run.bound ? "\"" : "";
	size_t huge = 0, whole = 0;
	long long written = 0;
	char start[16];

	snprintf(start, sizeof(start), "%d", run.start);
	for (int i = 0; i < run.w->processes; i++) {
		huge += shared->process[i].anon_huge;
		whole += shared->process[i].whole;
		final += shared->process[i].share / run.w->processes;
		for (int j = 0; j < run.threads; j++)
			for (int k = 0; k < NODES; k++)
				written += shared->process[i].thread[j].done[k];
	}
	for (size_t i = 0; i < n; i++)
		mean += samples[i].all / n;
	printf("{\"test\": \"%s\", \"processes\": %d, \"threads\": %d, \"mib\": %zu, "
	       "\"start_node\": %s, \"bound\": %s%s%s, \"warm_up\": %ld, \"written_mib\": %lld, "
	       "\"init_seconds\": %.3f, \"seconds\": %.3f, ",
	       run.w->name, run.w->processes, run.threads, run.size >> 20,
	       run.bound ? "null" : start, quote, run.bound ? bounds[run.bound] : "null", quote,
	       run.warm, written * (long long)(thp >> 20), init, seconds);
	printf("\"anon_huge_mib\": %g, ", huge * mib);
	if (run.page)
		printf("\"page_kib\": %zu, \"base_kib\": %zu, \"whole_mib\": %g, ",
		       run.page >> 10, mem_base_size() >> 10, whole * mib);
	printf("\"share_end\": %.4f, \"share_final\": %.4f, \"share_mean\": %.4f, "
	       "\"converged\": ", n ? samples[n - 1].all : 0, final, mean);
	if (when < 0)
		printf("null");
	else
		printf("%.3f", when);
	printf(", \"end_mib\": [");
	for (int i = 0; i < run.w->processes; i++) {
		printf("%s", i ? ", " : "");
		print_nodes(shared->process[i].pages, mem_base_size() * mib);
	}
	printf("], \"vmstat\": ");
	mem_print_delta(from, to);
	printf(", \"samples\": [");
	for (size_t i = 0; i < n; i++) {
		struct sample *s = &samples[i];

		printf("%s{\"t\": %.3f, \"share\": %.4f, \"of\": [", i ? ", " : "",
		       s->time, s->all);
		for (int j = 0; j < run.w->processes; j++)
			printf("%s%.4f", j ? ", " : "", s->share[j]);
		printf("], \"mib\": [");
		for (int j = 0; j < run.w->processes; j++) {
			printf("%s", j ? ", " : "");
			print_nodes(s->pages[j], run.stride * mib);
		}
		putchar(']');
		for (int j = 0; j < FAULTS && has_faults; j++)
			printf(", \"%s\": %lld", faults[j], s->faults[j] - faults_before[j]);
		putchar('}');
	}
	puts("]}");
}

static int usage(void)
{
	fputs("autonuma WORKLOAD [-s start node | -b hard|inverse] [-m MiB of a process]\n"
	      "         [-p passes | -t seconds] [-u warm-up passes] [-i ms between samples]\n"
	      "         [-k KiB of a page] [-l: one word of each line only]\nWORKLOAD:", stderr);
	for (size_t i = 0; i < sizeof(workloads) / sizeof(*workloads); i++)
		fprintf(stderr, " %s", workloads[i].name);
	fputc('\n', stderr);
	return 2;
}

static int bound_by(const char *name)
{
	for (int i = HARD; i <= INVERSE; i++)
		if (!strcmp(name, bounds[i]))
			return i;
	die("-b: '%s' is neither %s nor %s", name, bounds[HARD], bounds[INVERSE]);
}

static bool parse(int argc, char **argv)
{
	long mib;
	int c;

	for (size_t i = 0; i < sizeof(workloads) / sizeof(*workloads); i++)
		if (argc > 1 && !strcmp(argv[1], workloads[i].name))
			run.w = &workloads[i];
	if (!run.w)
		return false;
	mib = run.w->mib;
	run.start = -1;
	run.passes = 50;
	run.warm = 1;
	run.slice_ms = 200;
	optind = 2;
	while ((c = getopt(argc, argv, "s:b:m:p:t:u:i:k:l")) != -1) {
		switch (c) {
		case 's': run.start = mem_number("-s", optarg, 0); break;
		case 'b': run.bound = bound_by(optarg); break;
		case 'l': run.lines = true; break;
		case 'm': mib = mem_number("-m", optarg, 1); break;
		case 'p': run.passes = mem_number("-p", optarg, 1); break;
		case 't': run.seconds = mem_number("-t", optarg, 1); break;
		case 'u': run.warm = mem_number("-u", optarg, 1); break;
		case 'i': run.slice_ms = mem_number("-i", optarg, 10); break;
		case 'k': run.page = mem_number("-k", optarg, 1) << 10; break;
		default: return false;
		}
	}
	if (run.bound && run.start >= 0)
		die("-b says where all memory starts: no -s besides");
	if (!run.bound && run.start < 0)
		run.start = 0;
	run.size = (size_t)mib << 20;
	return optind == argc;
}

static void look_around(void)
{
	int cpus = run.cpus = sysconf(_SC_NPROCESSORS_ONLN), found = 0;

	for (int k = 0; k < NODES; k++) {
		if (mem_has_node(k)) {
			run.nodes = k + 1;
			found++;
		}
	}
	run.threads = cpus / run.w->divide;
	thp = mem_thp_size();
	if (found < 2 || cpus < 2 * found)
		die("%d nodes, %d CPUs: need two nodes and two CPUs a node", found, cpus);
	if (run.start >= run.nodes || (run.start >= 0 && !mem_has_node(run.start)))
		die("start node %d: there is none", run.start);
	if (run.threads > THREADS)
		die("%d threads: at most %d", run.threads, THREADS);
	if (run.size % (thp * run.threads))
		die("%zu MiB are not a whole number of THP for each of %d threads",
		    run.size >> 20, run.threads);
	if (run.page > thp)
		die("-k: a page has at most %zu KiB", thp >> 10);
	/* A power of two up to the THP size, of which there are whole ones. */
	run.stride = run.page ?: thp;
	while (run.stride < thp && run.size / run.stride > LOOKUPS)
		run.stride *= 2;
}

/* What the meter calls a run: the workload, and the size of pages if one was asked for. */
static const char *phase_name(void)
{
	static char name[64];

	snprintf(name, sizeof(name), run.page ? "%s-%zu" : "%s", run.w->name, run.page >> 10);
	return name;
}

int main(int argc, char **argv)
{
	struct mem_counter before[MEM_COUNTERS], after[MEM_COUNTERS];
	double start, end;
	size_t n;
	int all;

	if (!parse(argc, argv))
		return usage();
	look_around();
	if (run.page)
		mem_allow_pages(run.page);
	all = run.w->processes * run.threads;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	barrier(&shared->placed, all + run.w->processes + 1);
	barrier(&shared->go, all + 1);
	barrier(&shared->over, run.w->processes + 1);
	if (sem_init(&shared->ended, 1, 0))
		die("sem_init: %s", strerror(errno));
	signal(SIGCHLD, child_ended);

	start = mem_seconds();
	for (int i = 0; i < run.w->processes; i++) {
		int pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (!pid)
			process_main(&shared->process[i]);
		shared->process[i].pid = pid;
	}
	if (run.page)
		mem_hint_only(NULL);
	pthread_barrier_wait(&shared->placed);
	check_placed();
	mem_vmstat(before);
	has_faults = mem_vmstat_now(faults, faults_before, FAULTS);
	mark_begin(phase_name());
	run.began = mem_seconds();
	pthread_barrier_wait(&shared->go);
	n = watch(all);
	mark_end();
	end = last_end();
	mem_vmstat(after);
	pthread_barrier_wait(&shared->over);
	signal(SIGCHLD, SIG_DFL);
	for (int status; wait(&status) > 0;)
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			return 1;
	print(n, run.began - start, end - run.began, before, after);
	return 0;
}
