"""Runs as one HTML file to send: no network, every chart also as a table. Begin with `page`."""
