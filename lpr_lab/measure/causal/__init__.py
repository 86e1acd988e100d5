"""What each layer's choice of experts did to each next token; begin with `compute.causal_map`."""
