"""The errors a user can do something about: each says what was wrong, where, and what to do."""


class DeepRankError(Exception):
    """Base of all errors whose message is meant for the user and needs no traceback."""


class ConfigError(DeepRankError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(DeepRankError):
    """Images, labels or triplets are missing, unreadable or too few."""


class ModelError(DeepRankError):
    """A model bundle, an index or a release is missing, damaged or does not fit its companion."""


class TrainingError(DeepRankError):
    """A training cannot come to anything: its loss is no number, or its embedding has collapsed."""
