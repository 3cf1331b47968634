"""Fitting an inverse network: the loop over layers, the rows and sums of each, training, checkpoints."""
