"""Types that the modules of the synthetic images share."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Color = str | tuple[int, ...]  # as Pillow takes it: "#rrggbb", or red, green, blue
Point = tuple[float, float]  # x, y in pixels
Size = tuple[float, float]  # width, height in pixels
Vector = tuple[float, float, float]  # x to the right, y down, z away from the camera
