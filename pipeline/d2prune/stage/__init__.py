"""What a stage is: its record, its planned artifact, and how its units run."""
