"""Every claim about speed or quality, as a program: `python -m benchmarks.NAME`; see README.md."""
