"""One notebook at every point of a grid, several at a time.

Begin with `run`; `grid` checks the points before anything starts, `engines` executes them, `tables` sums them up.
"""
