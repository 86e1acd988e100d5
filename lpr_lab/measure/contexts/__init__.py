"""What one expert does in held-out text; begin with `compute.expert_contexts`."""
