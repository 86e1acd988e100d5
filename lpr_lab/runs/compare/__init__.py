"""Runs compared with one another: on the same documents, with intervals, or not at all.

Begin with `paired_scores`, two models on the documents that both were scored on; `paired_changes` and `trade_off`
build on it; `differences` lists how runs differ.
"""
