"""Files: saving and loading of fitted analyzers, the identity of a fit's model, safe writing and reading."""
