"""HTTP middleware, request limits, gradio's files, the queue for models and the models in memory. Knows no page.

Begin with `guard`, which every request passes, and `models`, which holds the models.
"""
