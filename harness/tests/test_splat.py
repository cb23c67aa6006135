"""Finding splats."""

import re
import tempfile
import unittest
from pathlib import Path

from harness import splat
from harness.common import Failure

BAD = """\
[    1.000000] WARNING: CPU: 1 PID: 77 at mm/migrate.c:100 migrate_pages+0x1/0x2
[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    1.000000] BUG: KASAN: use-after-free in foo+0x1/0x2
[    1.000000] BUG: Bad page state in process a  pfn:00001
[    1.000000] BUG: Bad rss-counter state mm:0000 type:MM_ANONPAGES val:512
[    1.000000] kernel BUG at mm/huge_memory.c:2000!
[    1.000000] INFO: possible recursive locking detected
[    1.000000] WARNING: possible circular locking dependency detected
[    1.000000] INFO: task thp_numa:88 blocked for more than 60 seconds.
[    1.000000] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:
[    1.000000] mm/pgtable-generic.c:50: bad pmd 00000000(8000000012345678)
[    1.000000] Internal error: synchronous external abort: 96000210 [#1] SMP
[    1.000000] addressing exception: 0005 ilc:2 [#1] SMP
[    1.000000] Oops: Kernel access of bad area, sig: 11 [#1]
[    1.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!
[    1.000000] BUG zs_handle (Not tainted): Objects remaining in zs_handle on __kmem_cache_shutdown()
[    1.000000] kmem_cache_destroy zs_handle: Slab cache still has objects
[    1.000000][    T1] BUG: sleeping function called from invalid context at mm/slab.h:1
""".splitlines()
GOOD = """\
[    0.000000] Linux version 5.10.262 (thp@guest)
[    0.100000] Memory: 2000000K/2097152K available
[    0.200000] rcu: Hierarchical RCU implementation.
[    0.300000] debug_vm_pgtable: [debug_vm_pgtable  ]: Validating architecture page table helpers
[    0.400000] NUMA: Warning: node ids are fine
[    1.500000] Injecting memory failure for pfn 0x1234 at process virtual address 0x7f
""".splitlines()


class Scan(unittest.TestCase):
    def test_each_kind(self):
        for line in BAD:
            self.assertEqual(len(splat.scan([line], [])), 1, line)

    def test_harmless(self):
        self.assertEqual(splat.scan(["\n".join(GOOD)], []), [])

    def test_task_and_once(self):
        log = "\n".join([BAD[0], "[ 2.0] harness: start thp_numa", BAD[1], BAD[1]])
        found = splat.scan([log, log], [])
        self.assertEqual([s.task for s in found], ["", "thp_numa"])

    def test_exception(self):
        self.assertEqual(splat.scan([BAD[0]], [re.compile("at mm/migrate.c")]), [])

    def test_exceptions_file(self):
        splat.exceptions()
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp) / "list"
            path.write_text("# comment\nfoo.*bar\tknown\thttps://example.org/1\n")
            self.assertEqual(len(splat.exceptions(path)), 1)
            path.write_text("foo.*bar\tno link\n")
            with self.assertRaisesRegex(Failure, "expression, reason and link"):
                splat.exceptions(path)

    def test_panic(self):
        line = "[    1.0] Kernel panic - not syncing: Fatal exception"
        self.assertEqual(splat.panic("x\n" + line), "Kernel panic - not syncing: Fatal exception")
        self.assertEqual(splat.panic("x\n"), "")


if __name__ == "__main__":
    unittest.main()
