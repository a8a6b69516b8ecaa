"""Named arrays in one `.npz` file: what figures are drawn from. Written atomically, no pickle."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from alj.campaign.store import write_file


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays; strings become fixed-width. Raises DiskFull."""
    buffer = BytesIO()
    plain: dict[str, Any] = {}
    for name, array in arrays.items():
        column = np.asarray(array)
        plain[name] = column.astype(str) if column.dtype == object else column
    np.savez_compressed(buffer, **plain)
    write_file(path, buffer.getvalue())
