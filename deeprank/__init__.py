"""Image similarity by deep ranking: photographs in folders in, a versioned, evaluated, searchable model out."""

__version__ = "0.1.0"
