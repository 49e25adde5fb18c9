"""Fuzz targets: each module has `one_input(data)`, which raises on a violation, and `SEEDS`."""
