"""What an expansion costs before it is made: operations, memory, time. Arithmetic alone, torch-free.

`shape` has the sizes of a base and of an expansion, `operations` what a step computes, `memory` what a device holds,
`estimate` puts them together for so many devices. `docs/scale.md` is made of them.
"""
