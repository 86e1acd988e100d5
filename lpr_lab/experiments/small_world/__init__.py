"""A world small enough to train from scratch in minutes, in which forgetting is plain and likeness is known."""
