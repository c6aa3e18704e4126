"""Errors that the user can correct: each message says what is wrong, where, and what to do."""


class DeepRankError(Exception):
    """Base of all errors whose message is for the user and needs no traceback."""


class ConfigError(DeepRankError):
    """A setting is unknown, has a wrong type, or contradicts another one."""


class DataError(DeepRankError):
    """Images, labels or triplets are missing, unreadable or too few."""


class StoreError(DataError):
    """A table, or the object store that holds it, is missing or cannot be read or written."""


class ModelError(DeepRankError):
    """A model bundle, an index or a release is missing, is damaged, or does not match another one."""


class TrainingError(DeepRankError):
    """A training failed: its loss is NaN or infinite, or its embeddings collapsed."""
