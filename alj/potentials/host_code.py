"""How host kernels are compiled: numba, without the interpreter lock, kept on disk where possible.

Importing this module imports numba, so it is imported only where a kernel is built.
"""

import inspect
from typing import Any

from numba import njit


def compiled(function) -> Any:
    """Compile in numba's nopython mode; division by zero gives inf.

    Sums may be reordered and products fused, which lets LLVM use vector lanes; infinities and NaN
    keep their meaning. The same build gives the same bits.
    """
    function = inspect.unwrap(function)  # run-time type checks of the tests cannot be compiled
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(function, **options)
