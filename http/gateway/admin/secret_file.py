"""Secrets that Weir makes for itself: a file of the data directory, made at the first start, for its owner alone."""

import os
import secrets
from pathlib import Path


def load_or_make(path: Path) -> str:
    """The secret in *path* (32 random bytes as text). Raises OSError when it can be neither read nor made."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if value := path.read_text().strip():
            return value
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)  # a start that was killed before it wrote
    value = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(value + "\n")
    return value
