"""Runs that tell forgetting from adaptation to a kind of text, and the rate at which a base learns."""
