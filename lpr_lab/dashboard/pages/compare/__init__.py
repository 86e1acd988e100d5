"""Page `/compare`: base and expanded model continuing one prompt, judged blind or not."""
