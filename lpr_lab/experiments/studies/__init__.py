"""The code behind the numbered notebooks, one module per notebook, and how each finds the run that it looks at.

Begin with the notebook; the module it imports is here. `subjects` and `predecessors` find runs.
"""
