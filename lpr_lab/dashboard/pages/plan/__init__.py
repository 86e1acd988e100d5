"""Page `/plan`: how many experts per layer, and what they cost in parameters, memory and time."""
