"""The version of the package: setup.py reads it here, and so does ``mipin_keras.__version__``."""

__version__ = "0.2.0"
