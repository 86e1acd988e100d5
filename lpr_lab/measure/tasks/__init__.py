"""Tasks made from held-out text, where a model is right or wrong: choices, inflection, generation.

Begin with `evaluate.evaluate_tasks`. `kinds` says what each task asks, its chance level and its limits; `choice`,
`inflection` and `generated` make and check the items; `scores` makes tables of them, and needs no torch.
"""
