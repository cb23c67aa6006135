"""compare.py against numbers worked out by hand or taken from tables."""

import unittest
import warnings

from harness import compare


class Summary(unittest.TestCase):
    def test_known(self):
        s = compare.summary([2, 4, 4, 4, 5, 5, 7, 9])
        self.assertEqual((s.n, s.mean), (8, 5))
        self.assertAlmostEqual(s.deviation, (32 / 7) ** 0.5)
        # t(0.975, 7) = 2.3646 in the printed tables
        self.assertAlmostEqual(s.ci, 2.3646 * (32 / 7 / 8) ** 0.5, places=3)

    def test_too_few(self):
        self.assertEqual(compare.summary([]), compare.Summary(0, None, None, None))
        self.assertEqual(compare.summary([3]), compare.Summary(1, 3, None, None))


class Ratio(unittest.TestCase):
    def test_ratio(self):
        self.assertEqual(compare.ratio([2, 4], [6]), 2)
        self.assertEqual(compare.ratio([2], [0, 0]), 0)

    def test_nothing_to_divide_by(self):
        self.assertIsNone(compare.ratio([0, 0], [1]))
        self.assertIsNone(compare.ratio([], [1]))
        self.assertIsNone(compare.ratio([1], []))


class Welch(unittest.TestCase):
    # Textbook case with unequal variances: t = -2.8265, 27.75 degrees of freedom.
    A = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0,
         21.7, 21.4]
    B = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9,
         30.1, 23.8]

    def test_interval_of_the_ratio(self):
        a, b = (sum(v) / len(v) for v in (self.A, self.B))
        # t(0.975, 27.75) = 2.0492; the error of the difference is the difference over t
        half = 2.0492 * (b - a) / 2.8265 / a
        low, high = compare.ratio_interval(self.A, self.B)
        self.assertAlmostEqual(low, b / a - half, places=4)
        self.assertAlmostEqual(high, b / a + half, places=4)

    def test_interval_of_few(self):
        self.assertIsNone(compare.ratio_interval([1], [1, 2]))
        self.assertIsNone(compare.ratio_interval([0, 0], [1, 2]))
        self.assertEqual(compare.ratio_interval([2, 2], [3, 3]), (1.5, 1.5))

    def test_two_sided(self):
        self.assertAlmostEqual(compare.differs(self.A, self.B), 0.0084, places=3)
        self.assertEqual(compare.differs(self.A, self.A), 1)

    def test_one_sided(self):
        p = compare.differs(self.A, self.B)
        self.assertAlmostEqual(compare.greater(self.A, self.B), p / 2)
        self.assertAlmostEqual(compare.greater(self.B, self.A), 1 - p / 2)

    def test_no_scatter(self):
        self.assertEqual(compare.differs([1, 1], [1, 1]), 1)
        self.assertEqual(compare.differs([1, 1], [2, 2]), 0)
        self.assertEqual(compare.greater([1, 1], [2, 2]), 0)
        self.assertEqual(compare.greater([2, 2], [1, 1]), 1)

    def test_scatter_on_one_side(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertLess(compare.greater([1, 1, 1], [1.9, 2, 2.1]), 0.01)

    def test_too_few(self):
        self.assertIsNone(compare.differs([1], [1, 2]))
        self.assertIsNone(compare.greater([1, 2], []))


class Fisher(unittest.TestCase):
    def test_known(self):
        # The lady tasting tea: 3 of 4 right has p = 17 / 70 = 0.243 one-sided
        def yes(n):
            return [True] * n + [False] * (4 - n)

        self.assertAlmostEqual(compare.fewer(yes(3), yes(1)), 17 / 70)
        self.assertAlmostEqual(compare.fewer(yes(4), yes(0)), 1 / 70)
        self.assertEqual(compare.fewer(yes(2), yes(4)), 1)

    def test_too_few(self):
        self.assertIsNone(compare.fewer([], [True]))


if __name__ == "__main__":
    unittest.main()
