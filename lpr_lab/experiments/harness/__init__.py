"""Evaluation of our runs by lm-evaluation-harness (`lm_eval`, the extra `eval`): the only place that imports it.

Its modules import the harness when they are imported themselves, so they are imported where an evaluation was asked
for and nowhere else.
"""
