"""How other rerank services speak: one file each, tied to paths in :mod:`routes`."""
