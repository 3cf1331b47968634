"""Short scripts to start from. Run them from the clone: ``python -m examples.explain_a_model``."""
