"""How far apart are two results, in units in the last place?"""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np

# What mergekit rounds more often than mergecore, which only a float32 output shows: sine and arc
# cosine are float32 there (slerp was seen 1.9 ulps from its formula in float64, mergecore 1.4),
# nearswap takes shares of two weights rather than adding a change, dot products are float32.
ULPS = {"slerp": 2, "nearswap": 3, "nuslerp": 8, "multislerp": 8, "karcher": 8, "model_stock": 8}


STACKED = r"(.*?(?:layers|layer|block|h)\.)(\d+)(\..*)|(.*)"


def largest_of(tensor: str, state: dict[str, np.ndarray]) -> np.ndarray:
    """The largest magnitudes of a tensor in any layer: slices may take it from each."""
    stem, number, rest = re.fullmatch(STACKED, tensor).group(1, 2, 3)
    if number is None:
        return state[tensor]
    alike = [state.get(f"{stem}{number}{rest}") for number in range(len(state))]
    alike = [x for x in alike if x is not None]
    return np.max(np.abs(np.stack(alike).astype(np.float64)), axis=0)


def within(ulps: int, actual: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """Elements so few ulps apart."""
    return ulps_apart(actual, expected, *inputs) <= ulps


def ulps_apart(actual: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """Differences in ulps of the largest magnitude in sight, as sums cancel."""
    wide = [x.astype(np.float64) for x in (actual, expected, *inputs)]
    _, exponent = np.frexp(np.max(np.abs(wide), axis=0))
    about = ml_dtypes.finfo(actual.dtype)
    ulp = np.maximum(np.ldexp(float(about.eps), exponent - 1), float(about.smallest_subnormal))
    return np.abs(wide[0] - wide[1]) / ulp
