"""Types of arrays that the change-point engine works on."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]
