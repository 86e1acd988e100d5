"""What the scorecard trains: arms times seeds on a base, in one process, resumable; `runs.scorecard` reads them."""
