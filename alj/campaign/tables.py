"""Named arrays in one `.npz` file: what figures are drawn from. Written atomically, no pickle."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from alj.campaign.store import write_file


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays; strings become fixed-width. Raises DiskFull."""
    buffer = BytesIO()
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(
        buffer, **{n: a.astype(str) if a.dtype == object else a for n, a in plain.items()}
    )
    write_file(path, buffer.getvalue())
