"""The scorecard: the claims of the two papers, decided from runs, with intervals over seeds and documents. Torch-free.

Begin with `claims`, what is claimed and how it is measured. `effects` computes, `verdict` decides, `table` has it all.
"""
