"""Classes of a library by name."""

from collections.abc import Iterable

from deeprank.nearest_names import nearest_names


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
    nearest = nearest_names(name, names)
    raise ValueError(f"there is no {kind} {name}; " + (f"nearest: {', '.join(nearest)}" if nearest else f"known: {', '.join(names)}"))
