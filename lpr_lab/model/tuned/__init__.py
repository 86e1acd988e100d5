"""What a baseline is made of: a base and the model that was tuned from it, and weights of which only a part learns."""
