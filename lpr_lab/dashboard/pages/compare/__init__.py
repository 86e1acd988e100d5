"""Page `/compare`: base and expanded model continuing one prompt, judged blind if you like."""
