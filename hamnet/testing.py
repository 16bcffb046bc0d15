"""Public checks that others can reuse: contract suites for readers, and assertions about matrices.

`class TestMyReader(ReaderContract)` in a test file runs every check below against a reader; override the class
attributes and the fixture `source`. Only tests import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.errors import FormatError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def assert_hermitian(matrix: BlockMatrix, tolerance: float = 0.0) -> None:
    """H_ij(R) = H_ji(-R)^dagger on full blocks, never through eigh, which reads one triangle only.

    Args:
        matrix: any matrix.
        tolerance: largest |M - M^dagger| allowed; 0 asks for bitwise equality.

    Raises:
        AssertionError: the residual is larger; the message names the pair.
    """
    residual, pair = matrix.hermitian_residual()
    where = matrix.describe_pair(pair)
    _require(residual <= tolerance, f"|M - M^dagger| is {residual:.3g} at pair {where}, allowed {tolerance:.3g}")


def assert_pairs_closed(matrix: BlockMatrix) -> None:
    """(i, j, R) in the list <=> (j, i, -R), sorted by species, and one on-site pair for each atom.

    Raises:
        AssertionError: a pair breaks it.
    """
    pairs, species = matrix.pairs, matrix.species
    back = pairs.reverse
    closed = (pairs.i[back] == pairs.j).all() and (pairs.cell_shift[back] == -pairs.cell_shift).all()
    _require(bool(closed and (back[back] == np.arange(pairs.n_pairs)).all()), "a pair's reverse is not its mirror")
    own = np.sort(pairs.i[pairs.on_site])
    _require(np.array_equal(own, np.arange(len(species))), f"on-site pairs are of atoms {own}, expected one for each")
    code = species[pairs.i] * (int(species.max()) + 1) + species[pairs.j]
    _require(bool((np.diff(code) >= 0).all()), "pairs are not sorted by species")


def eigenvalues_at(calculation: Calculation, kpoint: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n_spin, n_bands) eigenvalues (eV) of H(k) c = E S(k) c, dense.

    Args:
        calculation: has a Hamiltonian.
        kpoint: (3,) fractional.
    """
    if calculation.hamiltonian is None:
        raise AssertionError("the calculation has no Hamiltonian")
    h = BlochSum(calculation.hamiltonian).dense(kpoint)
    s = BlochSum(calculation.overlap).dense(kpoint)
    s = spin_overlap(s) if calculation.spin is Spin.SPINOR else s
    return np.stack([eigh(part, s, eigvals_only=True) for part in (h if h.ndim == 3 else h[None])])


class ReaderContract:
    """What every reader must do; inherit, set `reader` and the fixture `source`, and pytest runs it.

    Attributes:
        reader: the reader under test.
        eigenvalue_tolerance: eV between H(k)'s eigenvalues and the code's own, where it prints them.
        eigenvalue_kpoints: how many k-points to compare.
    """

    reader: Any
    eigenvalue_tolerance: float = 1e-6
    eigenvalue_kpoints: int = 4

    @pytest.fixture
    def source(self) -> Path:
        """One good source of the reader."""
        raise NotImplementedError("override the fixture `source` with the path of a good calculation")

    @pytest.fixture
    def calculation(self, source: Path) -> Calculation:
        """The calculation read from `source`."""
        result: Calculation = self.reader.read(source)
        return result

    def test_find_gives_back_a_source_itself(self, source: Path) -> None:
        """`find` on a source returns it, so that a user may name a folder, its parent or a file."""
        _require(list(self.reader.find(source)) == [source], f"find({source}) is {self.reader.find(source)}")

    def test_nothing_is_found_where_nothing_is(self, tmp_path: Path) -> None:
        """An empty folder holds no source, and reading it is a FormatError that names it."""
        _require(list(self.reader.find(tmp_path)) == [], "an empty folder has sources")
        with pytest.raises(FormatError, match=tmp_path.name):
            self.reader.read(tmp_path)

    def test_matrices_are_bitwise_hermitian(self, calculation: Calculation) -> None:
        """H and S equal their adjoints, without rounding."""
        for matrix in (calculation.overlap, calculation.hamiltonian):
            if matrix is not None:
                assert_hermitian(matrix)
                assert_pairs_closed(matrix)

    def test_overlap_is_positive_definite(self, calculation: Calculation) -> None:
        """S(k) has positive eigenvalues at k-points without symmetry, and at Gamma."""
        bloch = BlochSum(calculation.overlap)
        for kpoint in np.vstack((np.zeros(3), np.random.default_rng(0).uniform(-0.5, 0.5, (3, 3)))):
            least = float(eigvalsh(bloch.dense(kpoint))[0])
            _require(least > 0, f"S(k) has the eigenvalue {least:.3g} at k = {kpoint}")

    def test_overlap_reaches_no_further_than_hamiltonian(self, calculation: Calculation) -> None:
        """Pairs of S are a subset of the pairs of H: none is lost in silence."""
        if calculation.hamiltonian is not None:
            at = calculation.hamiltonian.pairs.find(calculation.overlap.pairs)
            _require(bool((at >= 0).all()), "a pair of S is not among the pairs of H")

    def test_eigenvalues_are_the_codes_own(self, calculation: Calculation) -> None:
        """Eigenvalues of H(k) equal what the code printed: units, order, signs, spin layout and gauge at once."""
        if calculation.eigenvalues is None or calculation.kpoints is None:
            pytest.skip("the source has no eigenvalues")
        for k in range(min(self.eigenvalue_kpoints, len(calculation.kpoints))):
            ours = eigenvalues_at(calculation, calculation.kpoints[k])
            theirs = calculation.eigenvalues[:, k]
            deviation = float(np.abs(ours[:, : theirs.shape[1]] - theirs).max())
            _require(deviation < self.eigenvalue_tolerance, f"eigenvalues differ by {deviation:.3g} eV at k-point {k}")

    def test_says_where_it_comes_from(self, calculation: Calculation) -> None:
        """Code, source and its sha256 are there, and a positive number of electrons."""
        origin = calculation.provenance
        _require(bool(origin.code and origin.source) and len(origin.sha256) == 64, f"provenance is {origin}")
        electrons = calculation.n_electrons
        _require(electrons is None or electrons > 0, f"{electrons} electrons")

    def test_reading_twice_gives_the_same_bits(self, source: Path) -> None:
        """Reading depends on nothing but the files."""
        first, second = self.reader.read(source), self.reader.read(source)
        _require(np.array_equal(first.overlap.values, second.overlap.values), "S differs between two readings")
        _require(first.basis == second.basis, "the basis differs between two readings")
