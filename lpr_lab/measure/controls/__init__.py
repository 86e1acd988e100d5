"""Measures that tell forgetting from what only looks like it, or hides it."""
