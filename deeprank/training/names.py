"""Classes of a library by name."""

import difflib
from collections.abc import Iterable


def require_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Return a name if it is known.

    Args:
        kind: what is named, for the message.
        name: to check.
        names: that are known.

    Raises:
        ValueError: the name is unknown; the message has the nearest known names.

    """
    names = list(names)
    if name in names:
        return name
    lowercase = {known.lower(): known for known in names}
    nearest = [lowercase[match] for match in difflib.get_close_matches(name.lower(), lowercase, 3)]
    raise ValueError(f"there is no {kind} {name}; " + (f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(names)}"))
