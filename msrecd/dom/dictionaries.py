"""Dictionaries of the specifications, which are mappings here (https://webidl.spec.whatwg.org/#idl-dictionaries)."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Collection, Mapping


def warn_of_unknown(
    owner: str, given: Mapping[str, object], known: Collection[str], *, stacklevel: int, what: str = "option"
) -> None:
    """One UserWarning for each member that `owner` does not know, with the nearest one that it does.

    WebIDL ignores such members without a word; a program that misspells one would never learn of it.

    Args:
        owner: of the dictionary, for the message.
        given: what the program gave.
        known: names of members.
        what: of the member, for the message.
        stacklevel: as of `warnings.warn`, counted from here: the caller's own line.
    """
    for name in given:
        if name not in known:
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", str(name)).lower()  # a browser's spelling is near, too
            near = [snake] if snake in known else difflib.get_close_matches(snake, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.warn(f"{owner} has no {what} {name!r}{hint}", UserWarning, stacklevel=stacklevel)
