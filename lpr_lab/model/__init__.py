"""The mixture of experts: a frozen base whose MLPs become mixtures, as a PEFT method.

Begin with `mixture.MoELayer`, one layer; `router` and `experts` are its parts, `adapter` puts it into a model,
`capture` reads from a running one. `bases/` is where dense models come from, `formats/` how expanded ones are kept,
`tuned/` what a baseline is made of.
"""
