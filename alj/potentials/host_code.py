"""How host kernels are compiled: numba, without the interpreter lock, kept on disk where possible.

Importing this module imports numba, so it is imported only where a kernel is built.
"""

import inspect
from typing import Any

from numba import njit


def with_kernel(function) -> Any:
    """`compiled`, for functions that take another compiled function as an argument.

    numba would keep these on disk under a name that no later process finds, and now and then fails
    to write it ("underlying object has vanished"); so each process compiles them for itself.
    """
    return compiled(function, keep=False)


def compiled(function, *, keep: bool = True) -> Any:
    """Compile in numba's nopython mode; division by zero gives inf. What may be kept, is on disk.

    Sums may be reordered and products fused, which lets LLVM use vector lanes; infinities and NaN
    keep their meaning. The same build gives the same bits.
    """
    function = inspect.unwrap(function)  # run-time type checks of the tests cannot be compiled
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    if not keep:
        return njit(function, **options)
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(function, **options)
