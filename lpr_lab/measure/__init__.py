"""Measurements: bits per byte, forgetting and gain, routing, expert load, generation. Begin with `bits.evaluate`."""
