"""One training on several processes, from every door: who starts them, what each does, and how they end.

`number` says how many, `launch` starts them under torchrun's agent (`agent`) as ranks (`worker`) and waits; `group` is
for ranks that somebody else started: torchrun, `accelerate launch` or Slurm. `accelerate/` has configuration files.
"""
