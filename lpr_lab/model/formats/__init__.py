"""Expanded models as files: saved and loaded, exported to native classes, imported from the papers' own code.

Begin with `save_load`.
"""
