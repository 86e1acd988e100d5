"""One model over several processes: who takes part, what each reads, and how its weights are divided."""
