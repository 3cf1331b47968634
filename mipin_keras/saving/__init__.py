"""Files: a fitted analyzer on disk, what tells whose fit it is, and how a file is written and read safely."""
