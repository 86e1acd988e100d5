"""Scores of layers that a budget of experts can be divided by, beside similarity: how much an expert is worth there.

`table` is the torch-free result, `measure` the verb; each other module measures one kind.
"""
