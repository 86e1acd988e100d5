"""What people write into a run: notes, texts of their own, continuations that they kept, and sittings of judgements."""
