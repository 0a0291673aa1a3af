"""The definition of a stage: its record, its planned artifact, and how its units run."""
