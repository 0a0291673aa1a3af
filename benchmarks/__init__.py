"""Every claim about speed or quality, as a program: `python -m benchmarks.NAME`. See README.md beside this file."""
