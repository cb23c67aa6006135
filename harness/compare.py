"""Numbers of two kernels, compared: confidence intervals, Welch's and Fisher's tests.

Student's distribution is scipy's; nothing here knows what the numbers are.
"""

import math
import statistics
import warnings
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Some values of one kernel.  None where there are too few to say."""

    n: int
    mean: float
    deviation: float    # of the sample
    ci: float           # half the width of the 95 % confidence interval of the mean


def summary(values):
    """Summary of a list of numbers."""
    n = len(values)
    if not n:
        return Summary(0, None, None, None)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(1, mean, None, None)
    deviation = statistics.stdev(values)
    ci = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
    return Summary(n, mean, deviation, ci)


def ratio(base, patched):
    """Mean of patched over mean of base, or None."""
    a, b = summary(base).mean, summary(patched).mean
    return b / a if a and b is not None else None


def ratio_interval(base, patched):
    """(least, most) of ratio(): the 95 % interval of Welch's test for the difference of the means,
    over base's mean, whose own error is only in the difference.  None where there are too few."""
    a, b = summary(base), summary(patched)
    if None in (a.deviation, b.deviation) or not a.mean:
        return None
    parts = a.deviation ** 2 / a.n, b.deviation ** 2 / b.n
    middle, half = b.mean / a.mean, 0
    if sum(parts):
        freedom = sum(parts) ** 2 / sum(v ** 2 / (s.n - 1) for v, s in zip(parts, (a, b)))
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(parts)) / a.mean
    return middle - half, middle + half


def _flat(values):
    return len(set(values)) <= 1


def differs(base, patched):
    """p of Welch's t-test, two-sided: that small if the means are the same; None: cannot say."""
    return _welch(base, patched, "two-sided")


def greater(base, patched):
    """p of Welch's t-test, one-sided: small if patched has the greater mean."""
    return _welch(base, patched, "less")


def fewer(base, patched):
    """p of Fisher's exact test, one-sided: small if fewer of patched, a list of bools, are so."""
    if not base or not patched:
        return None
    table = [[sum(patched), len(patched) - sum(patched)], [sum(base), len(base) - sum(base)]]
    return float(stats.fisher_exact(table, alternative="less")[1])


def _welch(base, patched, alternative):
    if len(base) < 2 or len(patched) < 2:
        return None
    if _flat(base) and _flat(patched):
        # No scatter at all: the test divides by zero, the answer is plain.
        if base[0] == patched[0]:
            return 1.0
        if alternative == "two-sided":
            return 0.0
        return 0.0 if patched[0] > base[0] else 1.0
    with warnings.catch_warnings():
        # It warns where one side has no scatter; the other side's is enough.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_ind(base, patched, equal_var=False,
                                     alternative=alternative).pvalue)
