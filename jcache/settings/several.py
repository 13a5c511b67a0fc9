"""Settings that name several paths, with colons between them."""

import os

__all__ = ["directories", "files"]


def directories(text: str) -> list[str]:
    """Return the directories that a value of JCACHE_DIR names.

    A colon tells two apart where what follows begins as a path does, with `/`, `~` or `.`; any other is part of a name.
    Nothing is looked for: a mount that is dead would never answer.
    """
    found: list[str] = []
    for word in text.split(os.pathsep):
        if word and (not found or word[0] in "/~."):
            found.append(word)
        elif word:
            found[-1] += os.pathsep + word
    return found or [text]


def files(text: str) -> list[str]:
    """Return the files that a value of JCACHE_BUNDLES names."""
    return [word for word in text.split(os.pathsep) if word]
