# Front door.  Each target is a step of the harness; variables are its options.

PYTHON = /usr/bin/python3

# Where to find and put things
export LINUX BUILD RESULTS
# What to run, and how
export ARCH FLAVOR ONLY MINUTES KERNEL CMD SHARE TIMEOUT ACCEL SLOW QUICK PEER A B FROM URL

# A shell command in CMD is for the guest's shell: no $ of it is make's.
override CMD := $(value CMD)

STEPS = run bench compare test metered shell guest apply export check configs mutants stress native lava

help:
	@echo 'make run       base and patched kernels side by side in a two-node guest: one table'
	@echo 'make bench     memory traffic by node, cost by instruction: a page [QUICK=1] [PEER=image of another kernel]'
	@echo '               [FROM=results/... its report made anew, nothing run]'
	@echo 'make compare   two results of make bench, or of make native: A=results/... B=results/...'
	@echo 'make test      harness tests, KUnit, kselftests  [ARCH=x] [FLAVOR=release|debug|64k|...|all] [ONLY=test]'
	@echo "make metered   the bench's own tests in guests: plugin, profile"
	@echo 'make shell     a shell in the guest              [KERNEL=base|patched] [SHARE=dir]'
	@echo 'make guest     CMD="..." in the guest            [KERNEL=base|patched] [SHARE=dir] [TIMEOUT=s]'
	@echo 'make apply     import the base, apply the series as branches of build/linux'
	@echo 'make export    write the patches of these branches to series/'
	@echo 'make check     patches: export, apply everywhere, build one by one, style, warnings  [ARCH=x]'
	@echo 'make configs   build them one by one with NUMA, SMP, ... turned off in turn, and all'
	@echo '               together with drivers that call them     [ARCH=x] [ONLY=option|drivers]'
	@echo 'make stress    the race tests for long, in a debug guest  [MINUTES=30] [ARCH=x] [ONLY=program]'
	@echo 'make native    the workloads on this machine, without QEMU  [FROM=folder of bench/native/run]'
	@echo 'make lava      what a LAVA lab needs to run tests and bench  [ARCH=x] [URL=where the lab finds it]'
	@echo 'make mutants   put each bug back and see its test fail   [ONLY=mutant]'
	@echo
	@echo 'ARCH=x         x86_64, arm64, ppc64le, s390x; without it the host, in test and check all'
	@echo 'LINUX=dir      take the base from a git checkout, not from Debian'
	@echo 'BUILD=dir      build folder (default: build)   RESULTS=dir (default: results)'
	@echo 'ACCEL=tcg|kvm  instead of trying               SLOW=n  n times longer time limits'

$(STEPS):
	@$(PYTHON) -m harness $@

.PHONY: help $(STEPS)
