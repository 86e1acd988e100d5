"""The instruments: bits per byte, forgetting and gain, routing, generation."""
