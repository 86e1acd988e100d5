"""What one language at a time gains and costs, by the same recipe and budget.

`plan` says which languages and which run of each, `facts` measures the base on a language, `make` trains what is
missing, `table` reads it.
"""
