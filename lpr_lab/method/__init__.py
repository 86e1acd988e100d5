"""The method of the two papers: allocate, upcycle, expand (stage 1), review (stage 2)."""
