"""Image similarity by deep ranking: images in folders in, a versioned, evaluated, searchable model out."""

import logging

__version__ = "0.1.0"

# FAISS tells at every start which of its builds it tries to load.
logging.getLogger("faiss").setLevel(logging.WARNING)
