"""The report stage: one self-contained HTML page about a run, and the summary table in the terminal."""
