"""The known names nearest to an unknown one, for messages."""

import difflib
import unicodedata
from collections.abc import Iterable

# Names that are compared; of more names, only those with the same first letter.
MAX_COMPARED = 1000


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return at most `count` known names that are similar to a name, most similar first.

    Unicode form, case, and spaces at the ends are ignored. A known path is similar too if its last part is.
    """
    by_form: dict[str, dict[str, None]] = {}
    for other in known:
        for form in (_simplify(other), _simplify(other.rpartition("/")[2])):
            by_form.setdefault(form, {})[other] = None
    for form in (_simplify(name), _simplify(name.rpartition("/")[2])):
        candidates: Iterable[str] = by_form
        # A comparison takes 0.1 ms, and a service answers others meanwhile.
        if len(by_form) > MAX_COMPARED:
            candidates = [other for other in by_form if other[:1] == form[:1] or form in other][:MAX_COMPARED]
        matches = difflib.get_close_matches(form, candidates, count)
        if matches:
            return list(dict.fromkeys(other for match in matches for other in by_form[match]))[:count]
    return []


def _simplify(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
