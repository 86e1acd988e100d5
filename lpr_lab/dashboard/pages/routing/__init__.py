"""Page `/routing`: where each token of a text went."""
