"""Executes a notebook into a run directory, with papermill.

Begin with `run.run_notebook`; `parameters` checks and casts what a notebook declares.
"""
