// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU TCG plugin: which instructions of the kernel run between two marks that
 * a program of the guest sets (bench/lib/marks.h), and how often each.
 *
 * Options:
 *   out=FILE     one line of JSON for each window
 *   least=N      leave out windows with fewer instructions of the kernel
 *
 * A window begins with the end of a message that has a name, and ends with that
 * of an empty one.  Windows of a name are numbered from 0, those left out too.
 *
 * For one vCPU: a second one would count in the same window.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

#include "../lib/marks.h"

#define BUCKETS		(1u << 16)
#define NAME_SIZE	(MARK_LENGTH + 1)
#define NAMES		64

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* An instruction of the kernel, however often it was translated. */
struct site {
	uint64_t addr;
	uint64_t count;		/* in the window that it was last seen in */
	uint64_t window;
	struct site *next;	/* of its bucket */
	struct site *seen;	/* before it in the window */
};

static struct site *buckets[BUCKETS];

static struct {
	bool open;
	uint64_t id;		/* of all windows; 0: none yet */
	uint64_t number;	/* of those of its name */
	uint64_t total;
	struct site *seen;
	char name[NAME_SIZE];
} window;

static struct {
	char text[NAME_SIZE];
	size_t size;
} message;

static struct {
	char name[NAME_SIZE];
	uint64_t windows;
} names[NAMES];

static FILE *out;
static uint64_t least;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("profile: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static struct site *site_of(uint64_t addr)
{
	struct site **bucket = &buckets[(addr ^ addr >> 16) % BUCKETS], *s;

	for (s = *bucket; s; s = s->next)
		if (s->addr == addr)
			return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		die("out of memory");
	s->addr = addr;
	s->next = *bucket;
	*bucket = s;
	return s;
}

static uint64_t next_number(const char *name)
{
	for (size_t i = 0; i < NAMES; i++) {
		if (!*names[i].name)
			strcpy(names[i].name, name);
		if (!strcmp(names[i].name, name))
			return names[i].windows++;
	}
	die("more than %d names of windows", NAMES);
}

static void begin(void)
{
	window.id++;
	window.total = 0;
	window.seen = NULL;
	strcpy(window.name, message.text);
	window.number = next_number(window.name);
	window.open = true;
}

static void end(void)
{
	const char *comma = "";

	window.open = false;
	if (window.total < least)
		return;
	fprintf(out, "{\"window\": \"%s\", \"number\": %" PRIu64 ", \"instructions\": %" PRIu64
		", \"at\": {", window.name, window.number, window.total);
	for (struct site *s = window.seen; s; s = s->seen) {
		fprintf(out, "%s\"%" PRIx64 "\": %" PRIu64, comma, s->addr, s->count);
		comma = ", ";
	}
	fputs("}}\n", out);
	if (ferror(out))
		die("cannot write a window: is the disk full?");
}

static void end_of_message(void)
{
	message.text[message.size] = 0;
	if (message.size)
		begin();
	else if (window.open)
		end();
	message.size = 0;
}

/* A name goes into JSON as it is. */
static void character(unsigned char c)
{
	if (c < ' ' || c > '~' || c == '"' || c == '\\')
		die("a name of a window has the byte %u", c);
	if (message.size == NAME_SIZE - 1)
		die("a name of a window is longer than %d", NAME_SIZE - 1);
	message.text[message.size++] = c;
}

static void user_store(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t addr, void *data)
{
	(void)cpu, (void)info, (void)data;
	if (addr - MARK_PAGE > MARK_END)
		return;
	if (addr - MARK_PAGE == MARK_END)
		end_of_message();
	else
		character(addr - MARK_PAGE);
}

static void kernel_instruction(unsigned int cpu, void *data)
{
	struct site *s = data;

	(void)cpu;
	if (!window.open)
		return;
	if (s->window != window.id) {
		s->window = window.id;
		s->count = 0;
		s->seen = window.seen;
		window.seen = s;
	}
	s->count++;
	window.total++;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t addr = qemu_plugin_insn_vaddr(insn);

		/* The kernel has the upper half, also on 64-bit Arm and POWER */
		if (addr >> 63)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, kernel_instruction,
							       QEMU_PLUGIN_CB_NO_REGS,
							       site_of(addr));
		else
			qemu_plugin_register_vcpu_mem_cb(insn, user_store,
							 QEMU_PLUGIN_CB_NO_REGS,
							 QEMU_PLUGIN_MEM_W, NULL);
	}
}

static void finish(qemu_plugin_id_t id, void *data)
{
	(void)id, (void)data;
	if (fclose(out))
		die("cannot write the windows: is the disk full?");
}

static uint64_t number(const char *text)
{
	char *rest;
	uint64_t n = strtoull(text, &rest, 10);

	if (rest == text || *rest)
		die("'%s' is not a number", text);
	return n;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
					   int argc, char **argv)
{
	const char *path = NULL;

	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			path = argv[i] + 4;
		else if (!strncmp(argv[i], "least=", 6))
			least = number(argv[i] + 6);
		else
			die("there is out= and least=, no '%s'", argv[i]);
	}
	if (!path)
		die("out= is needed");
	if (!info->system_emulation || info->system.max_vcpus != 1)
		die("only for a guest of one vCPU");
	out = fopen(path, "w");
	if (!out)
		die("cannot write %s", path);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
