/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tell the meter (bench/meter) that what follows is measured.  Without it these
 * are stores to a page of the caller that nobody reads.
 *
 * The offset of a store says what it means: a byte of the name of a phase, the
 * end of that name, which begins the phase or, without a name, ends it, or the
 * node that the page is on now.  The page has a fixed address, so that the meter,
 * which sees all stores of the guest, needs no help from the kernel.
 *
 * One thread of the guest at a time may do so.
 */
#ifndef BENCH_MARKS_H
#define BENCH_MARKS_H

/* Below what any 64-bit architecture gives to a program, and where none puts its own. */
#define MARK_PAGE	0x14d41520000ull
#define MARK_SIZE	4096
/* Offsets; what is less than the first of them is a byte of a name. */
#define MARK_END	256
#define MARK_NODE	512	/* and above: node */
#define MARK_LENGTH	64	/* of a name; the rest is cut off */

/* Begin a phase of that name; one that was not ended is lost. */
void mark_begin(const char *name);
void mark_end(void);

#endif
