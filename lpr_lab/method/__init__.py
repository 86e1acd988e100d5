"""The method of the two papers, in their order: similarity, allocation, upcycling, stage 1, stage 2; and the baselines.

Begin with `expand` and `review`, the two stages, and `losses`, the equations. `training/` is the loop that
all of them share.
"""
