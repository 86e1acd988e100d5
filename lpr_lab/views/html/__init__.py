"""Data to HTML, escaped. Begin with `tokens`, a text with each token in the colour of its expert."""
