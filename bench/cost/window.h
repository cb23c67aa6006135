/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One operation between two marks, for bench/profile/, and its instructions by
 * the guest's clock.  Windows of a name are numbered from 0, as the plugin does
 * it; a program that wants to be found there prints the numbers of its values.
 */
#ifndef BENCH_WINDOW_H
#define BENCH_WINDOW_H

#include <stdio.h>
#include <stdlib.h>

#include "../lib/marks.h"
#include "../lib/mem.h"

struct window {
	char name[32];
	uint64_t next;		/* number of the next one */
	uint64_t empty;		/* instructions of a window with nothing in it */
	uint64_t start;
};

static inline void window_begin(struct window *w)
{
	mark_begin(w->name);
	w->next++;
	w->start = mem_instructions();
}

/* Instructions since window_begin(). */
static inline uint64_t window_end(struct window *w)
{
	uint64_t now = mem_instructions();

	mark_end();
	return now - w->start - w->empty;
}

/* What is left in @empty is the least of many, without a timer interrupt. */
static inline void window_init(struct window *w)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t t;

		window_begin(w);
		t = window_end(w);
		if (t < best)
			best = t;
	}
	w->empty = best;
}

/* A value, and the number of its window. */
struct cost {
	uint64_t value;
	uint64_t window;
};

static inline int cost_by_value(const void *a, const void *b)
{
	uint64_t x = ((const struct cost *)a)->value, y = ((const struct cost *)b)->value;

	return (x > y) - (x < y);
}

/* "window": name, "windows": numbers, "values", "min" and "median" of JSON; sorts them. */
static inline void cost_print(const struct window *w, struct cost *c, size_t n)
{
	printf("\"window\": \"%s\", \"windows\": [", w->name);
	for (size_t i = 0; i < n; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)c[i].window);
	printf("], \"values\": [");
	for (size_t i = 0; i < n; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)c[i].value);
	qsort(c, n, sizeof(*c), cost_by_value);
	printf("], \"min\": %llu, \"median\": %llu", (unsigned long long)c[0].value,
	       (unsigned long long)(n % 2 ? c[n / 2].value :
				    (c[n / 2 - 1].value + c[n / 2].value) / 2));
}

#endif
