"""The run directory: what a run writes, and how it is listed, read, compared and described. Torch-free.

Begin with `run.Run`, one directory; `files` and `formats` say what is in it, `status` and `live` how far a running one
is, `claims` which promises of the method its results keep. `compare/` holds what needs more than one run.
"""
