"""D4RL-style HDF5, <part>.hdf5, with the names of `flat`. Chunked without filters, which are slow to write."""

from pathlib import Path
from typing import Any

import h5py

from rl_hooks.export.formats.flat import arrays, flat_facts
from rl_hooks.export.formats.source import Bundle

_CHUNK_ROWS = 1 << 14


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>.hdf5"""
    for name, part in bundle.parts.items():
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            for key, values in arrays(part).items():
                file.create_dataset(key, data=values, chunks=(min(_CHUNK_ROWS, len(values)), *values.shape[1:]))
            file.attrs["observation_columns"] = list(bundle.encoding.columns)
            file.attrs["action_names"] = list(bundle.actions)
    return flat_facts(bundle, ".hdf5")
