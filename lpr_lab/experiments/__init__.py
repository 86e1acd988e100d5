"""Whole experiments: their settings, the recipes, and the pipeline that makes a run of them.

Begin with `pipeline.run`; `config` has the settings, `recipes` the named experiments, `steps` what recipes are made of.
`results` says what `results.json` holds.
"""
