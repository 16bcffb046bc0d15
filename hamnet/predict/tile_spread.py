"""How far the members of an ensemble are apart, gathered tile by tile.

The energy zero of each member may be free, and mu_k = <D_k, S> / <S, S> (D_k = H_k - mean) is known only when all tiles
are in. So tiles keep, for each block, sum_k |D_k|^2, |S|^2 and every <D_k, S>; then

    variance = (sum_k |D_k|^2 - 2 sum_k mu_k <D_k, S> + sum_k mu_k^2 |S|^2) / (n_models - 1) / numbers of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hamnet.core.blocks import BlockMatrix
from hamnet.nn.dataset import overlap_like

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CHUNK = 2**20


def spread_sums(matrices: Sequence[BlockMatrix], mean: BlockMatrix, overlap: BlockMatrix) -> FloatArray:
    """(n_pairs, n_models + 2) for each block: sum_k |D_k|^2, |S|^2, <D_1, S>, <D_2, S>, ... (eV^2, 1, eV).

    Args:
        matrices: H of the members, on the same pairs.
        mean: of them.
        overlap: S on these pairs.
    """
    s = overlap_like(overlap, mean).values
    deviations = [matrix.values - mean.values for matrix in matrices]
    squares = np.sum([np.square(np.abs(d)) for d in deviations], axis=0)
    columns = [squares, np.square(np.abs(s)), *((d * s.conj()).real for d in deviations)]
    starts = mean.offsets[:-1]
    return np.stack([np.add.reduceat(column, starts) for column in columns], axis=1)


class SpreadFile:
    """The sums of all blocks of a structure, in a file beside the store that tiles fill.

    Args:
        path: file of raw float64 numbers, row after row.
        n_pairs, n_models: shape of the table, (n_pairs, n_models + 2); rows of pairs that are not kept are zero.
    """

    def __init__(self, path: Path, n_pairs: int, n_models: int) -> None:
        self.path, self.shape = path, (n_pairs, n_models + 2)

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return 8 * self.shape[0] * self.shape[1]

    def make(self) -> None:
        """Zeros, which take no room before they are written."""
        with self.path.open("wb") as file:
            file.truncate(self.n_bytes)

    def write(self, places: IntArray, sums: FloatArray) -> None:
        """Rows of a tile, on the disk when this returns."""
        table = np.memmap(self.path, dtype=np.float64, mode="r+", shape=self.shape)
        table[places] = sums
        table.flush()

    def finish(self, store: Path, species: IntArray, block_sizes: IntArray, free: bool) -> tuple[IntArray, FloatArray]:
        """Pairs (n_pairs, 5: i, j, R) and spread (n_pairs,) in eV of a structure whose tiles are all done.

        Args:
            store: with the table of pairs.
            species: (n_atoms,) of the structure.
            block_sizes: (n_species, n_species) numbers of a block of H.
            free: the energy zero of each member is free.
        """
        table = np.memmap(self.path, dtype=np.float64, mode="r", shape=self.shape)
        parts = [slice(k, min(k + _CHUNK, self.shape[0])) for k in range(0, self.shape[0], _CHUNK)]
        with h5py.File(store, "r") as file:
            rows = file["pairs"]
            total = np.sum([_weights(rows[part]) @ table[part] for part in parts], axis=0)
            mu = total[2:] / total[1] if free else np.zeros(self.shape[1] - 2)
            every, spread = np.empty((self.shape[0], 5), dtype=np.int64), np.empty(self.shape[0])
            reverse = np.empty(self.shape[0], dtype=np.int64)
            for part in parts:
                found, sums = rows[part], table[part]
                every[part], reverse[part] = found[:, :5], found[:, 5]
                size = block_sizes[species[every[part, 0]], species[every[part, 1]]] * (len(mu) - 1)
                variance = sums[:, 0] - 2 * sums[:, 2:] @ mu + sums[:, 1] * (mu @ mu)
                spread[part] = np.sqrt(np.maximum(variance, 0.0) / size)
        kept = np.arange(self.shape[0]) <= reverse
        return every, np.where(kept, spread, spread[reverse])


def _weights(rows: IntArray) -> FloatArray:
    """A kept block stands for its reverse, too, if that is another."""
    on_site = (rows[:, 0] == rows[:, 1]) & ~rows[:, 2:5].any(axis=1)
    return np.where(on_site, 1.0, 2.0)
