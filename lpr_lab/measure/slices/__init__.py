"""Slices of test sets: digits, names and other tokens, picked by rule; what each adds to a change. `rules` has them."""
