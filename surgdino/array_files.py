"""Arrays of .npy files, mapped: read as data, with no more memory than their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from surgdino.errors import SurgdinoError, from_os_error
from surgdino.paths import regular


def map_array(path: Path, fix: str = "delete it, and run the same command again") -> np.ndarray:
    """What a .npy file holds, mapped, not loaded; at least one dimension.

    Args:
        fix: what to do where it holds something else.

    Raises:
        SurgdinoError: as `regular`; no array of numbers, or a shape that is larger than the file.
    """
    expected = "an array of numbers"
    try:
        # Not `np.load`, which takes archives and pickles, too.
        found = np.lib.format.open_memmap(regular(path), mode="r")
    except SurgdinoError:
        raise
    except OSError as error:
        raise from_os_error(error, path) from error
    except Exception as error:  # numpy raises whatever a damaged header leads it to
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise SurgdinoError("not an array", file=path, expected=expected, found=said, fix=fix) from error
    if not found.ndim:
        raise SurgdinoError("not an array", file=path, expected=expected, found="a single number", fix=fix)
    return found
