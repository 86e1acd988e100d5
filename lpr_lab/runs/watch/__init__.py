"""What a run shows while it works: its numbers so far, the end of its log, and the alerts that it raises."""
