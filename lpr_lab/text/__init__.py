"""Text: languages, where documents come from, how they are split, packed and drawn."""
