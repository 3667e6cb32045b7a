"""Files that people write: settings, tokens, passphrases, rules."""

import os
import stat
from pathlib import Path


def read_text(path: str, largest: int, *, private: bool = False) -> str:
    """Return a regular file's text, of at most ``largest`` bytes; a ``private`` one may not be read by all users.

    Raises ValueError, whose text says what is wrong and not which file.
    """
    try:
        # O_NONBLOCK: a pipe in the file's place must not hold up the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError("not a regular file")
            if private and mode & stat.S_IROTH:
                raise ValueError(f"every user can read it: chmod o= {Path(path).name}")
            content = os.read(descriptor, largest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None
    if len(content) > largest:
        raise ValueError(f"larger than {largest} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
