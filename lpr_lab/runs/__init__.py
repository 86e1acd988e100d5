"""The run directory: what a run writes, and how it is listed, read, compared and described. Torch-free.

Begin with `run.Run`, one directory, and `find`, the functions that find or start one. `files` and `formats` read and
write its parts, `status` and `live` follow a running one, `claims` checks what the method promises against its
results. `compare/` holds what needs more than one run.
"""
