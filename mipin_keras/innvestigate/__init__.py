"""iNNvestigate itself, on a tf-keras twin of a Keras 3 model."""

from .analyzer import INNVESTIGATE, PREFIX, import_innvestigate

__all__ = ["INNVESTIGATE", "PREFIX", "import_innvestigate"]
