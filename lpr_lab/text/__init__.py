"""Text: documents by language and split, and what tokenizers make of them.

Begin with `load.load_corpus`; `corpus` is what it returns, `packing` turns it into blocks of tokens, `languages` knows
codes and scripts. `sources/` and `demo/` are where documents come from.
"""
