"""How an analyzer runs over its samples, and explains the layers on the way."""
