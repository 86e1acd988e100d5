"""One segment in many languages: where it is found, and how alike a model routes it. Begin with `compute`."""
