"""One segment in many languages, on page `/routing`. Begin with `controls`."""
