"""The training loop that every stage and baseline shares. Begin with `train.train`; `terms` are the parts of a loss."""
