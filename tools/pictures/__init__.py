"""The pictures in docs/images: `python -m tools.pictures` (see `__main__`)."""
