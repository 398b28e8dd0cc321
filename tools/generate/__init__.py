"""Files that are made from others and stand in the repository: `python -m tools.generate` writes them anew."""
