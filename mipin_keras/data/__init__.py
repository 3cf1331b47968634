"""Passes over data, and what they print while they run."""
