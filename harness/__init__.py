"""Apply, build, boot, test and measure the patch series.  See CONTRIBUTING.md."""
