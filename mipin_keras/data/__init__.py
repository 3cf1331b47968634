"""Passes over data, the replicas that share them, and the progress that they print."""
