"""Corpora from files, folders and the Hugging Face hub, every row checked. Begin with `files` and `rows`."""
