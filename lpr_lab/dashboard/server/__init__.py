"""The process behind the pages: requests, limits, turns, models in memory. Knows no page.

Begin with `guard`, which every request passes, and `models`, which holds the models.
"""
