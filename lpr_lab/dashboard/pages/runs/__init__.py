"""Page `/runs`: what has been run, one run in full, runs compared, a running one followed."""
