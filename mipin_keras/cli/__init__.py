"""The command line: ``mipin``, or ``python -m mipin_keras``."""
