"""Tests of the harness itself.  test_*.py need nothing, guest_*.py a built kernel."""
