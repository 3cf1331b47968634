"""The inverses of each type of step."""
