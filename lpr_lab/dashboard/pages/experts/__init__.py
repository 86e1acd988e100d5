"""Page `/experts`: how tokens spread over experts, and which languages they serve."""
