"""Experiments: settings, recipes, the run directory and the pipeline that tells the whole story."""
