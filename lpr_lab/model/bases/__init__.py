"""Base models: found by name, hub id or folder, checked, loaded. Begin with `load.load_base`."""
