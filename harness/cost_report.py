"""What a report says of harness.cost's data: checks, tables of text, plots as SVG."""

import io

from harness.report import number, size_name

# Instructions above the copy of one THP, as they were measured elsewhere: of the ad hoc path,
# and of Linux 7.2.13.
AD_HOC, LATER = 81549, 98300
# Share of the faults served in a microsecond that was published for the same change under
# memory pressure: of the base, and of the patched kernel.
PUBLISHED_SERVED = (0.184, 0.557)
# Operations on one THP, of base and patched kernel, with a copy and without.
COPYING, FAULTING = ("hint", "move"), ("local", "full", "pieces")
# How many times fewer instructions a THP takes than its base pages, at least.
DEVICE_RATIOS = {"to_device": 2.5, "to_system": 5}
TITLES = {"hint": "hinting fault migrates one THP", "move": "move_pages(2) of one THP",
          "to_device": "2M to the device", "to_system": "2M back from the device",
          "local": "hinting fault of a local THP",
          "full": "hinting fault that cannot migrate, node nearly full",
          "pieces": "hinting fault that cannot migrate, node in pieces"}
PRESSURES = {"free": "node free", "full": "node nearly full", "pieces": "node in pieces"}
KERNELS = ("base", "patched")
# Instructions of the program itself in an operation, at most: the touch, or the system call.
PROGRAM = 64
# Functions of a breakdown that get a line of their own.
LINES = 16


def _find(data, **want):
    """The rows of costs with these values."""
    return [r for r in data["costs"] if all(r[k] == v for k, v in want.items())]


def _one(data, **want):
    """The first such row, or None."""
    return next(iter(_find(data, **want)), None)


def _thp(data):
    """KiB of a THP of a PMD: the largest that was migrated."""
    return max((r["kib"] for r in _find(data, what="hint")), default=0)


def _pair(data, what):
    """Rows of one THP on base and patched kernel; None for what is missing."""
    return [_one(data, what=what, kernel=k, kib=_thp(data)) for k in KERNELS]


def _device(data, way):
    """Rows of the way to a device or back: as base pages, as a THP."""
    found = sorted(_find(data, what=way), key=lambda r: r["kib"])
    return found if len(found) == 2 else [None, None]


# Checks

def _check(what, wrong):
    return {"what": what, "ok": not wrong, "why": wrong}


def checks(data):
    """What must hold of the costs: list of what, ok, why."""
    return [*_no_higher(data), _below_ad_hoc(data), _sizes_cheaper(data),
            *_device_cheaper(data), _copies_seen(data), _profiles_agree(data),
            _served(data)]


def _no_higher(data):
    found = []
    for what in COPYING:
        base, patched = _pair(data, what)
        wrong = "no measurement of both kernels"
        if base and patched:
            wrong = "" if patched["above"] <= base["above"] else \
                f"{number(patched['above'])} against {number(base['above'])} instructions"
        found.append(_check(f"{TITLES[what]}: no more above the copy than on the base", wrong))
    return found


def _below_ad_hoc(data):
    patched = _pair(data, "hint")[1]
    wrong = "no measurement"
    if patched:
        wrong = "" if patched["above"] <= AD_HOC else f"{number(patched['above'])}"
    return _check(f"{TITLES['hint']}: at most the {AD_HOC:,} instructions above the copy that were "
                  "measured elsewhere of the ad hoc path", wrong)


def _lacks(what, why):
    """A check of what a kernel does not have."""
    return {"what": what, "ok": True, "why": f"not measured, {why}"}


def _sizes_cheaper(data):
    """Results of before do not say what sizes the kernel has: then, of those that were measured."""
    what = "hinting faults: a page of each size takes fewer instructions than as many base pages"
    rows = {r["kib"]: r for r in size_rows(data) if 1 < r["count"]}
    sizes = data.get("sizes", [])
    wrong = [f"{size_name(kib)}: not measured" for kib in sizes or () if kib not in rows]
    wrong += [f"{size_name(r['kib'])}: {number(r['median'])} against {number(r['pages_median'])}"
              for r in rows.values() if r["median"] >= r["pages_median"]]
    if not rows or sizes is None:
        wrong.append("not measured")
    if not wrong and "sizes" in data and not sizes:
        return _lacks(what, "between a base page and a PMD's: the kernel has no such size")
    return _check(what, ", ".join(wrong))


def _device_cheaper(data):
    found = []
    for way, ratio in DEVICE_RATIOS.items():
        what = f"{TITLES[way]}: a THP takes at most 1/{ratio:g} of what its base pages take"
        base, thp = _device(data, way)
        if base:
            have = base["mean"] / thp["mean"]
            found.append(_check(what, "" if have >= ratio else f"1/{have:.2f}"))
        elif data.get("device") is False:
            found.append(_lacks(what, "the kernel has no module test_hmm"))
        else:
            found.append(_check(what, "not measured"))
    return found


def _clock(row):
    return row.get("clock", row["median"])


def _copies_seen(data):
    """Where it is not known what an instruction copies, there is no floor to be seen."""
    wrong = []
    for r in data["costs"]:
        # Several copies may be made by as many instructions
        least = min(r["floor"], r["kib"] * 1024 * r["pages"] // max(1, data["copied"]))
        if r["floor"] and (r["copies_ran"] is None or r["copies_ran"] < least):
            ran = "not profiled" if r["copies_ran"] is None else number(r["copies_ran"])
            wrong.append(f"{r['what']}, {r['kernel']}, {size_name(r['kib'])}: {ran} of "
                         f"{number(least)}")
    return _check("the copy that is left out was seen to run", ", ".join(wrong))


def _agrees(row):
    """Whether what was profiled of an operation comes to what the clock says of it.

    Results of before have no `clock` of the operations that were profiled, only a median of
    all: that may differ by as much as the operations do, 1 %.
    """
    if row["profiled"] is None:
        return False
    apart = abs(row["profiled"] - _clock(row))
    return apart <= (PROGRAM if "clock" in row else 0.01 * _clock(row))


def _profiles_agree(data):
    """The plugin counts the kernel's instructions, the guest's clock those of the program too."""
    wrong = [f"{r['what']}, {r['kernel']}, {size_name(r['kib'])}: {number(r['profiled'])} against "
             f"{number(_clock(r))}" for r in data["costs"]
             if not _agrees(r)]
    return _check(f"breakdowns agree with the clock, within {PROGRAM} instructions of an operation",
                  ", ".join(wrong) if data["costs"] else "no measurement")


def _served(data):
    """By the median: what is served in a microsecond, is a matter of the CPU's speed."""
    found = {r["kernel"]: r["median"] for r in data["latency"] if r["pressure"] == "full"}
    wrong = "no measurement of both kernels"
    if found.keys() >= set(KERNELS):
        base, patched = (found[k] for k in KERNELS)
        wrong = "" if patched <= base else f"{number(patched)} against {number(base)} instructions"
    return _check("node nearly full: the median hinting fault takes no longer than on the base",
                  wrong)


# Tables

def tables(data):
    """(title, header, rows of text) of each table; the first column is text, the rest numbers."""
    found = [_operations(data), _sizes(data), _size_breakdown(data), _device_table(data),
             *_breakdowns(data), _latencies(data), _latencies_compared(data)]
    return [t for t in found if t[2]]


# key of a row, its title; the last two where there is a copy
FIGURES = (("least", "least"), ("median", "median"), ("mean", "mean"), ("deviation", "deviation"),
           ("floor", "the copy"), ("above", "median above the copy"))


def _ratio(a, b):
    return f"{b / a:.3f}" if a else ""


def _operations(data):
    rows = []
    for what in COPYING + FAULTING:
        base, patched = _pair(data, what)
        if not base or not patched:
            continue
        figures = FIGURES if base["floor"] else FIGURES[:-2]
        for key, title in figures:
            a, b = base[key], patched[key]
            rows.append((f"{TITLES[what]}: {title}", number(a), number(b),
                         _ratio(a, b) if key in ("median", "above") else "",
                         str(patched["n"]) if key == "median" else ""))
    return ("Cost of one operation, instructions", ("", *KERNELS, "ratio", "n"), rows)


def size_rows(data):
    """The patched kernel's hinting faults by size of page, beside those of its base pages.

    pages_median, pages_above: of as many base pages, the median of one times their number.
    base_median: the same on the base kernel.
    """
    sizes = sorted(_find(data, what="hint", kernel="patched"), key=lambda r: r["kib"])
    if not sizes:
        return []
    one, other = sizes[0], _one(data, what="hint", kernel="base", kib=sizes[0]["kib"])
    rows = []
    for r in sizes:
        n = r["kib"] // one["kib"]
        rows.append(r | {"count": n, "pages_median": n * one["median"],
                         "pages_above": n * one["above"],
                         "base_median": n * other["median"] if other else None})
    return rows


def _sizes(data):
    rows = [(size_name(r["kib"]), number(r["median"]), number(r["above"]),
             number(r["pages_median"]), number(r["pages_above"]), number(r["base_median"]),
             _ratio(r["pages_median"], r["median"])) for r in size_rows(data)]
    return ("Hinting faults by size of page, instructions: one page of the size, and as many base "
            "pages", ("pages of", "one page", "above the copy", "as base pages",
                      "above the copy", "as base pages, base kernel", "ratio"), rows)


def _device_table(data):
    rows = []
    for way in DEVICE_RATIOS:
        base, thp = _device(data, way)
        if base:
            rows += [(f"{TITLES[way]}: mean", number(base["mean"]), number(thp["mean"]),
                      f"1/{base['mean'] / thp['mean']:.2f}"),
                     (f"{TITLES[way]}: deviation", number(base["deviation"]),
                      number(thp["deviation"]), ""),
                     (f"{TITLES[way]}: the copies", number(base["floor"]), number(thp["floor"]),
                      ""),
                     (f"{TITLES[way]}: median above the copies", number(base["above"]),
                      number(thp["above"]), f"1/{base['above'] / thp['above']:.2f}")]
    return ("2 MiB to a device and back, instructions", ("", "as base pages", "as a THP", "ratio"),
            rows)


def _breakdowns(data):
    found = []
    for what in COPYING + FAULTING:
        pair = _pair(data, what)
        if all(pair):
            above = " above the copy" if pair[0]["floor"] else ""
            found.append(_breakdown(f"{TITLES[what]}: instructions{above}, by function",
                                    KERNELS, pair))
    for way in DEVICE_RATIOS:
        pair = _device(data, way)
        if pair[0]:
            found.append(_breakdown(f"{TITLES[way]}: instructions above the copies, by function",
                                    ("as base pages", "as a THP"), pair, by_two=True))
    return found


def _size_breakdown(data, lines=LINES):
    """Where the instructions go on the patched kernel, a column for each size of page."""
    sizes = [r for r in size_rows(data) if r["breakdown"]]
    parts = [dict(r["breakdown"]) for r in sizes]
    names = sorted({n for p in parts for n in p},
                   key=lambda n: (-sum(p.get(n, 0) / r["count"] for p, r in zip(parts, sizes)), n))
    rows = [(n, *(number(p.get(n, 0)) for p in parts)) for n in names[:lines]]
    if names[lines:]:
        rows.append((f"{len(names) - lines} others",
                     *(number(sum(p.get(n, 0) for n in names[lines:])) for p in parts)))
    if rows:
        rows.append(("all of it", *(number(sum(p.values())) for p in parts)))
    return ("Hinting faults by size of page, patched: instructions above the copy, by function, "
            "most per base page first", ("", *(size_name(r["kib"]) for r in sizes)), rows)


def side_by_side(one, two, lines=LINES, by_two=False):
    """[(function, instructions of one, of two)] of two breakdowns, those with most in either first.

    What is not among the first `lines` is added up as the last.  by_two: those
    with most in the second first, which is far less than the first.
    """
    a, b = dict(one), dict(two)
    names = sorted({**a, **b}, key=lambda n: (0 if by_two else -max(a.get(n, 0), b.get(n, 0)),
                                              -b.get(n, 0), -a.get(n, 0), n))
    rows = [(n, a.get(n, 0), b.get(n, 0)) for n in names]
    rest = rows[lines:]
    if rest:
        rows[lines:] = [(f"{len(rest)} others", sum(r[1] for r in rest),
                         sum(r[2] for r in rest))]
    return rows


def _breakdown(title, header, pair, by_two=False):
    rows = side_by_side(*(r["breakdown"] for r in pair), by_two=by_two)
    total = [sum(r[i] for r in rows) for i in (1, 2)]
    return (title, ("", *header, "difference"),
            [(name, number(a), number(b), f"{b - a:+,.0f}")
             for name, a, b in [*rows, ("all of it", *total)]])


def _latencies(data):
    rows = []
    for pressure, title in PRESSURES.items():
        for r in data["latency"]:
            if r["pressure"] == pressure:
                kinds = [f"{k['n']} of {number(k['median'])}" if k["n"] else "0"
                         for k in r["kinds"].values()]
                rows.append((f"{title}, {r['kernel']}", str(r["n"]), number(r["mean"]),
                             number(r["median"]), *(f"{100 * s:.1f}" for _, s in r["shares"]),
                             *kinds))
    limits = [f"within {n:,}, %" for n, _ in data["latency"][0]["shares"]] if rows else []
    return ("Latency of hinting faults of THP, guest nanoseconds, that is instructions; by what "
            "became of the page: number and median", ("", "faults", "mean", "median", *limits,
                                                      "migrated", "was local",
                                                      "left where it was"), rows)


def latency_pairs(data):
    """[(pressure, row of the base, of the patched kernel)] of the pressures that both have."""
    found = {(r["pressure"], r["kernel"]): r for r in data["latency"]}
    return [(p, *(found[p, k] for k in KERNELS)) for p in PRESSURES
            if all((p, k) in found for k in KERNELS)]


def _latencies_compared(data):
    rows = []
    for pressure, base, patched in latency_pairs(data):
        for key in ("median", "mean"):
            a, b = base[key], patched[key]
            rows.append((f"{PRESSURES[pressure]}: {key}", number(a), number(b), f"{b - a:+,.0f}",
                         _ratio(a, b), "slower" if b > a else "faster" if b < a else "same"))
    return ("Latency of hinting faults of THP against the base, guest nanoseconds, that is "
            "instructions", ("", *KERNELS, "difference", "ratio", "patched is"), rows)


def _slower(data):
    """A sentence that names the pressures under which faults take longer than on the base."""
    worse = [f"{PRESSURES[p]} by {number(b['median'] - a['median'])} "
             f"({100 * (b['median'] / a['median'] - 1):.1f} %)"
             for p, a, b in latency_pairs(data) if b["median"] > a["median"]]
    return [f"The median hinting fault takes longer than on the base: {', '.join(worse)}. "
            f"Judged is only: {PRESSURES['full']}."] if worse else []


def _own_base(data):
    """Why the base of this bench is not the ad hoc path of elsewhere; '' without it."""
    base = _pair(data, "hint")[0]
    return (f" The {AD_HOC:,} are of base 5.10.262, too, in a guest of one CPU whose clock counts "
            "instructions (343,693 with the copy), but of a build whose configuration is not noted: "
            f"the base of this bench takes {number(base['above'])} on the same path. No more than "
            "these is a check of its own."
            ) if base else ""


def notes(data):
    """What a reader must know of the numbers, in sentences."""
    base, patched = (100 * s for s in PUBLISHED_SERVED)
    copy = (f"derived, {data['copied']} bytes an instruction, and seen to run by the plugin."
            if data["copied"] else "not known here, what an instruction of it moves: it is in the "
            "numbers.")
    return [
        f"The copy of the data is the floor of a migration, which no kernel gets below: {copy}",
        "Costs and latencies are of guests of one CPU whose clock counts instructions: a "
        "nanosecond of theirs is one instruction. What waits, and what caches do, is not in it.",
        f"Measured elsewhere of one THP, instructions above the copy: {AD_HOC:,} on the ad hoc "
        f"path, {LATER:,} on Linux 7.2.13.{_own_base(data)}",
        "Breakdowns are means of the middle half of the operations, so that those with a timer "
        "interrupt are left out.",
        "Latencies are from the touch that faults to its end, each THP faulting equally often. "
        f"Published for the same change under pressure: {base:.1f} % of the faults within 1 µs on "
        f"the base, {patched:.1f} % patched; that is of a machine, which runs some thousand "
        "instructions in it: the shares are given for one, two and four of them in a nanosecond. "
        "A local fault takes about 1,000, which makes the first of them a matter of a few "
        "instructions.", *_slower(data)]


# Plots

COLORS = {"base": "#7f7f7f", "patched": "#0072b2"}
PARTS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")


def plots(data):
    """(title, SVG text) of each plot; none where there are no data."""
    import matplotlib               # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    found = []
    for title, draw, there in (
            ("Instructions above the copy, by function", _plot_parts, _bars(data)),
            ("Hinting faults by size of page, instructions per base page", _plot_sizes,
             size_rows(data)),
            ("Latency of hinting faults of THP", _plot_latency, data["latency"])):
        if there:
            found.append((title, _svg(title, draw, there)))
    return found


def _svg(title, draw, there):
    """What a function draws, as the text of an <svg> element.

    The title sees to it that no two plots of a page have an id in common.
    """
    from matplotlib import pyplot   # pylint: disable=import-outside-toplevel
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"cost {title}",
                            "font.size": 9}):
        figure = draw(pyplot, there)
        figure.tight_layout()
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def _bars(data):
    """[(label, breakdown)] of the bars, those of one THP."""
    rows = [(f"{TITLES[what]}, {r['kernel']}", r) for what in ("hint", "move")
            for r in _pair(data, what) if r]
    rows += [(f"{TITLES[way]}, as a THP", r) for way in DEVICE_RATIOS
             for r in _device(data, way)[1:] if r]
    return [(label, r["breakdown"]) for label, r in rows]


def _plot_parts(pyplot, bars):
    """A bar for each operation; the functions with most in all of them have a color each."""
    total = {}
    for _, parts in bars:
        for name, n in parts:
            total[name] = total.get(name, 0) + n
    names = sorted(total, key=total.get, reverse=True)[:len(PARTS) - 1]
    figure, axis = pyplot.subplots(figsize=(9, 1.2 + 0.45 * len(bars)))
    at = [0] * len(bars)
    for name, color in zip([*names, None], PARTS):
        widths = [sum(n for f, n in parts if (f == name if name else f not in names))
                  for _, parts in bars]
        # matplotlib leaves out of a legend what begins with '_': the names come later
        axis.barh(range(len(bars)), widths, left=at, color=color, label="x",
                  edgecolor="white", linewidth=0.5)
        at = [a + w for a, w in zip(at, widths)]
    axis.set_yticks(range(len(bars)), [label for label, _ in bars])
    axis.invert_yaxis()
    axis.set_xlabel("instructions above the copy")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    legend = figure.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    for text, name in zip(legend.get_texts(), [*names, "others"]):
        text.set_text(name)
    return figure


def _plot_sizes(pyplot, rows):
    """Instructions of a base page's share, for pages of each size."""
    figure, axis = pyplot.subplots(figsize=(7, 3.2))
    axis.plot(range(len(rows)), [r["median"] / r["count"] for r in rows], "o-",
              color=COLORS["patched"], label="in a page of the size")
    axis.axhline(rows[0]["median"], color=COLORS["patched"], linestyle=":",
                 label="as base pages")
    if rows[0]["base_median"]:
        axis.axhline(rows[0]["base_median"], color=COLORS["base"], linestyle="--",
                     label="as base pages, base kernel")
    axis.plot(range(len(rows)), [r["floor"] / r["count"] for r in rows], color="#d55e00",
              linestyle="-.", label="the copy")
    axis.set_xticks(range(len(rows)), [size_name(r["kib"]) for r in rows])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("size of the page")
    axis.set_ylabel("instructions per base page")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.legend(frameon=False)
    return figure


def _plot_latency(pyplot, rows):
    """A panel for each pressure: share of the faults by power of two of nanoseconds."""
    there = [p for p in PRESSURES if any(r["pressure"] == p for r in rows)]
    figure, axes = pyplot.subplots(1, len(there), figsize=(3.2 * len(there), 3), sharey=True,
                                   squeeze=False)
    powers = [b.bit_length() - 1 for r in rows for b, _ in r["histogram"]]
    first, last = min(powers), max(powers)
    for axis, pressure in zip(axes[0], there):
        for i, kernel in enumerate(KERNELS):
            for r in rows:
                if (r["pressure"], r["kernel"]) == (pressure, kernel):
                    axis.bar([b.bit_length() - 1 + 0.4 * i - 0.2 for b, _ in r["histogram"]],
                             [100 * n / r["n"] for _, n in r["histogram"]], width=0.4,
                             color=COLORS[kernel], label=kernel)
        axis.set_title(PRESSURES[pressure], fontsize=9)
        axis.set_xticks(range(first, last + 1, 2),
                        [_ns(1 << e) for e in range(first, last + 1, 2)], fontsize=8)
        axis.set_xlim(first - 0.7, last + 0.7)
        axis.set_ylim(0, 100)
        axis.set_xlabel("guest ns, from")
    axes[0][0].set_ylabel("% of the faults")
    axes[0][0].legend(frameon=False)
    return figure


def _ns(n):
    """'512' or '16k' of a power of two."""
    return f"{n >> 10}k" if n >= 1024 else str(n)
