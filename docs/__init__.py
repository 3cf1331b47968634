"""The pages, and what writes their tables: ``python -m docs.make_layers``."""
