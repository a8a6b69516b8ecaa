"""How host kernels are compiled: numba, without the interpreter lock, kept on disk where possible.

Importing this module imports numba, so it is imported only where a kernel is built.
"""

from numba import njit


def compiled(function):
    """Compile in numba's nopython mode, IEEE arithmetic throughout; division by zero gives inf."""
    try:
        return njit(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(function, nogil=True, error_model="numpy")
