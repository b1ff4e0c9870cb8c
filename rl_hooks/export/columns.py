"""Arrow columns out of numbered facts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def named(ids: Array, names: tuple[str, ...], missing: Array | None = None) -> pa.Array:
    """A dictionary column: `ids` are positions in `names`."""
    positions = np.where(missing, 0, ids) if missing is not None else ids
    return pa.DictionaryArray.from_arrays(pa.array(positions.astype(np.int32), mask=missing), pa.array(list(names)))
