"""Numpy, for columns of whole numbers, without the threads that it starts for linear algebra.

Nothing here needs these; and a signal that one of them gets does not wake up a process that waits for it.
It takes a tenth of a second to import, so it is imported where there is something to count.
"""

import os
from typing import Any, TypeAlias

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[Any]
"""A row of whole numbers."""

__all__ = ["Numbers", "np"]
