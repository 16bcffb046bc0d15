"""Public checks that others can reuse: contract suites for readers, and assertions about matrices.

`class TestMyReader(ReaderContract)` in a test file runs every check below against a reader; override the class
attributes and the fixture `source`. `class TestMyModel(ModelContract)` does the same for a model, with the fixtures
`predict` and `structure`. Only tests import this module.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from hamnet.core.bloch import BlochSum, spin_overlap
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import PairList
from hamnet.core.rotation import rotate_blocks, rotate_structure
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.core.supercell import supercell_matrix, supercell_structure
from hamnet.errors import FormatError
from hamnet.testing_moments import MomentContract, Predict
from hamnet.testing_moments import require as _require


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


def relabelled(
    matrix: BlockMatrix,
    atoms: NDArray[np.int64] | None = None,
    wraps: NDArray[np.int64] | None = None,
    cell_change: NDArray[np.int64] | None = None,
) -> BlockMatrix:
    """A matrix of a crystal described anew, said in the labels of the first description.

    A new pair (a, b, n) is the first one's (atoms[a], atoms[b], n . cell_change + wraps[b] - wraps[a]).

    Args:
        matrix: of the new description.
        atoms: (n_atoms,) permutation; None for the same order.
        wraps: (n_atoms, 3) in the first lattice vectors; None for no wrap.
        cell_change: (3, 3) integer of determinant 1 or -1; None for the same cell.
    """
    pairs, n_atoms = matrix.pairs, len(matrix.species)
    atoms = np.arange(n_atoms) if atoms is None else atoms
    wraps = np.zeros((n_atoms, 3), dtype=np.int64) if wraps is None else wraps
    change = np.eye(3, dtype=np.int64) if cell_change is None else cell_change
    species = np.empty_like(matrix.species)
    species[atoms] = matrix.species
    shift = pairs.cell_shift @ change + wraps[pairs.j] - wraps[pairs.i]
    old, order = PairList.build_with_order(atoms[pairs.i], atoms[pairs.j], shift, species)
    values = np.concatenate([matrix.block(int(p)).ravel() for p in order])
    return BlockMatrix.from_values(old, matrix.basis, species, matrix.spin, values)


def assert_same_matrix(found: BlockMatrix, expected: BlockMatrix, tolerance: float) -> None:
    """Same pairs, and every block equal within tolerance times the largest number of the expected matrix.

    Raises:
        AssertionError: pairs differ, or a block does; the message names the pair.
    """
    a, b = found.pairs, expected.pairs
    same = np.array_equal(a.i, b.i) and np.array_equal(a.j, b.j) and np.array_equal(a.cell_shift, b.cell_shift)
    _require(same, f"the pairs differ: {a.n_pairs} found, {b.n_pairs} expected")
    difference = np.abs(found.values - expected.values)
    at = int(difference.argmax())
    pair = expected.describe_pair(int(np.searchsorted(expected.offsets, at, side="right")) - 1)
    allowed = tolerance * float(np.abs(expected.values).max())
    _require(
        float(difference[at]) <= allowed, f"blocks differ by {difference[at]:.3g} at pair {pair}, allowed {allowed:.3g}"
    )


def assert_equivariant(
    predict: Predict, structure: AtomicStructure, rotation: NDArray[np.float64], tolerance: float
) -> None:
    """predict(O x) = U predict(x) U^dagger, with the reference rotation of `hamnet.core.rotation`.

    Args:
        predict: structure -> blocks.
        structure: any.
        rotation: (3, 3) orthogonal, proper or improper.
        tolerance: relative to the largest number of the matrix.

    Raises:
        AssertionError: it does not hold; the message names the pair.
    """
    matrix = predict(structure)
    turned = rotate_structure(structure, rotation)
    if matrix.spin is Spin.COLLINEAR:
        turned = replace(turned, moments=structure.moments)  # the spin axis stays where it is
    assert_same_matrix(predict(turned), rotate_blocks(matrix, rotation), tolerance)


def band_energies(matrix: BlockMatrix, kpoint: NDArray[np.float64]) -> NDArray[np.float64]:
    """All eigenvalues (eV) of H(k) for an orthonormal basis, sorted, the channels of collinear blocks together."""
    return np.sort(np.linalg.eigvalsh(BlochSum(matrix).dense(kpoint)), axis=None)


class ModelContract(MomentContract):
    """What every model of H must do; inherit, set the fixtures and attributes, and pytest runs it.

    Attributes:
        tolerance: relative to the largest number of the matrix; 1e-10 in float64, 1e-3 in float32.
        receptive_field: Angstrom; atoms further from both atoms of a pair cannot matter to its block.
        cutoffs: Angstrom; distances of the first and the last atom's species where the model cuts something off.
            The first one is where the block of the pair vanishes.
    """

    tolerance: float = 1e-10
    receptive_field: float
    cutoffs: tuple[float, ...]

    @pytest.fixture
    def predict(self) -> Predict:
        """The model under test."""
        raise NotImplementedError("override the fixture `predict` with a function from structure to BlockMatrix")

    @pytest.fixture
    def structure(self) -> AtomicStructure:
        """A crystal of at least two atoms, periodic in three directions, that lies inside its cell."""
        raise NotImplementedError("override the fixture `structure`")

    def test_prediction_is_bitwise_hermitian(self, predict: Predict, structure: AtomicStructure) -> None:
        """Full blocks, without rounding, and the pairs are closed."""
        matrix = predict(structure)
        assert_hermitian(matrix)
        assert_pairs_closed(matrix)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_rotation(self, predict: Predict, structure: AtomicStructure, seed: int) -> None:
        """Random rotations, proper, and improper for odd seeds."""
        random = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        proper = random * np.sign(np.linalg.det(random))
        assert_equivariant(predict, structure, proper * (-1) ** seed, self.tolerance)

    def test_inversion_and_mirror(self, predict: Predict, structure: AtomicStructure) -> None:
        """Inversion, and mirrors in the coordinate planes and in an oblique one."""
        normal = np.array([1.0, 2.0, -2.0]) / 3
        oblique = np.eye(3) - 2 * np.outer(normal, normal)
        for rotation in (-np.eye(3), np.diag([1.0, 1, -1]), np.diag([-1.0, 1, 1]), oblique):
            assert_equivariant(predict, structure, rotation, self.tolerance)

    def test_quarter_turns(self, predict: Predict, structure: AtomicStructure) -> None:
        """90 degrees about x, y and z, exactly: a permutation of axes hides no rounding of the matrix."""
        for axis in range(3):
            turn = np.zeros((3, 3))
            turn[axis, axis] = 1
            turn[(axis + 2) % 3, (axis + 1) % 3], turn[(axis + 1) % 3, (axis + 2) % 3] = 1, -1
            assert_equivariant(predict, structure, turn, self.tolerance)

    def test_the_rotation_matters(self, predict: Predict, structure: AtomicStructure) -> None:
        """The prediction is not a constant: without U the rotated structure has another matrix."""
        turned = predict(rotate_structure(structure, np.diag([1.0, -1, -1])))
        difference = np.abs(turned.values - predict(structure).values).max()
        _require(difference > 1e-3 * np.abs(turned.values).max(), "the prediction does not feel a rotation")

    def test_order_of_atoms(self, predict: Predict, structure: AtomicStructure) -> None:
        """Permuting the atoms permutes the blocks."""
        atoms = np.random.default_rng(3).permutation(structure.n_atoms)
        assert_same_matrix(
            relabelled(predict(_described_anew(structure, atoms=atoms)), atoms), predict(structure), self.tolerance
        )

    def test_translation(self, predict: Predict, structure: AtomicStructure) -> None:
        """Moving everything changes nothing."""
        moved = _described_anew(structure, positions=structure.positions + np.array([0.3, -7.1, 2.2]))
        assert_same_matrix(predict(moved), predict(structure), self.tolerance)

    def test_wrapping_atoms(self, predict: Predict, structure: AtomicStructure) -> None:
        """An atom put into another cell changes only the labels R."""
        wraps = np.random.default_rng(4).integers(-2, 3, (structure.n_atoms, 3))
        moved = _described_anew(structure, positions=structure.positions + wraps @ structure.lattice)
        assert_same_matrix(relabelled(predict(moved), wraps=wraps), predict(structure), self.tolerance)

    def test_another_unit_cell(self, predict: Predict, structure: AtomicStructure) -> None:
        """Other lattice vectors of the same lattice change only the labels R."""
        for change in (np.array([[1, 1, 0], [0, 1, 0], [-1, 0, 1]]), np.array([[0, 1, 0], [1, 0, 0], [0, 1, 1]])):
            sheared = _described_anew(structure, cell=change @ structure.lattice)
            assert_same_matrix(relabelled(predict(sheared), cell_change=change), predict(structure), self.tolerance)

    def test_supercell_folds(self, predict: Predict, structure: AtomicStructure) -> None:
        """Blocks of the doubled crystal are those of the crystal, and so are the bands at the folded k-points."""
        matrix = predict(structure)
        large = predict(supercell_structure(structure, (2, 1, 1)))
        assert_same_matrix(large, supercell_matrix(matrix, (2, 1, 1)), self.tolerance)
        k = np.array([0.17, -0.31, 0.23])
        folded = [band_energies(matrix, (k + [fold, 0, 0]) / [2, 1, 1]) for fold in (0, 1)]
        expected = np.sort(np.concatenate(folded))
        # n numbers of the size of the tolerance move an eigenvalue by n times that at the most
        allowed = self.tolerance * float(np.abs(matrix.values).max()) * large.n_orbitals
        deviation = float(np.abs(band_energies(large, k) - expected).max())
        _require(deviation <= allowed, f"folded bands differ by {deviation:.3g} eV, allowed {allowed:.3g}")

    def test_strict_locality(self, predict: Predict, structure: AtomicStructure) -> None:
        """Moving an atom outside the receptive field changes nothing, bitwise; adding atoms there only rounding."""
        n = structure.n_atoms
        extent = float(np.ptp(structure.positions, axis=0).max())
        far = structure.positions + np.array([extent + self.receptive_field + 1.0, 0, 0])
        numbers, species = np.tile(structure.atomic_numbers, 2), np.tile(structure.species, 2)
        here = AtomicStructure(structure.atomic_numbers, structure.species, structure.positions)
        positions = np.concatenate((structure.positions, far))
        before = _blocks_among(predict(AtomicStructure(numbers, species, positions)), n)
        positions[n:] += np.random.default_rng(5).normal(scale=1e-3, size=(n, 3))
        after = _blocks_among(predict(AtomicStructure(numbers, species, positions)), n)
        _require(np.array_equal(before, after), "an atom outside the receptive field matters")
        alone = _blocks_among(predict(here), n)
        # sums may be done in another order in a larger batch
        added = float(np.abs(alone - before).max() / np.abs(alone).max())
        _require(added <= max(1e-12, 0.01 * self.tolerance), f"atoms outside the receptive field change {added:.3g}")
        positions[0] += 1e-3
        near = _blocks_among(predict(AtomicStructure(numbers, species, positions)), n)
        _require(not np.array_equal(near, after), "an atom inside the receptive field does not matter")

    def test_blocks_vanish_at_the_cutoff(self, predict: Predict, structure: AtomicStructure) -> None:
        """The block of a pair goes to zero like the cube of the distance from the cutoff, or faster."""
        reach = self.cutoffs[0]
        middle, last = (_dimer_values(predict, structure, reach * x)[1] for x in (0.7, 0.995))
        size = float(np.abs(last).max() / np.abs(middle).max())
        # an envelope 56 (1 - x)^3 is 7e-6 at x = 0.995, and about 0.4 in the middle
        _require(size < 1e-3, f"just inside the cutoff the block is {size:.3g} of that in the middle")

    def test_smooth_across_cutoffs(self, predict: Predict, structure: AtomicStructure) -> None:
        """Second differences along a path across each cutoff do not grow as the step shrinks."""
        for reach in self.cutoffs:
            curvature = []
            for step in (1e-2, 1e-3):
                lengths = reach + np.outer(np.linspace(-0.04, 0.04, 5), np.ones(3)) + step * np.array([-1, 0, 1])
                f = np.array([[np.concatenate(_dimer_values(predict, structure, d)) for d in row] for row in lengths])
                curvature.append(float(np.abs(f[:, 0] - 2 * f[:, 1] + f[:, 2]).max()) / step**2)
            scale = float(np.abs(f).max())
            # a kink makes the ratio 10, a jump 100; the last term is rounding over the smaller step squared
            allowed = 3 * curvature[0] + self.tolerance * scale / 1e-6
            _require(curvature[1] <= allowed, f"curvature {curvature} near {reach} A: the block is not smooth there")


def _described_anew(
    structure: AtomicStructure,
    atoms: NDArray[np.int64] | None = None,
    positions: NDArray[np.float64] | None = None,
    cell: NDArray[np.float64] | None = None,
) -> AtomicStructure:
    atoms = np.arange(structure.n_atoms) if atoms is None else atoms
    return AtomicStructure(
        structure.atomic_numbers[atoms],
        structure.species[atoms],
        (structure.positions if positions is None else positions)[atoms],
        structure.cell if cell is None else cell,
        structure.pbc,
        None if structure.moments is None else structure.moments[atoms],
    )


def _blocks_among(matrix: BlockMatrix, n_atoms: int) -> NDArray[Any]:
    chosen = np.flatnonzero((matrix.pairs.i < n_atoms) & (matrix.pairs.j < n_atoms))
    return np.concatenate([matrix.block(int(p)).ravel() for p in chosen])


def _dimer_values(predict: Predict, structure: AtomicStructure, distance: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """On-site blocks and the off-site block of the first and the last atom alone, zero where there is none."""
    ends = np.array([0, structure.n_atoms - 1])
    direction = np.array([2.0, -1.0, 2.0]) / 3
    positions = np.array([np.zeros(3), distance * direction])
    matrix = predict(AtomicStructure(structure.atomic_numbers[ends], structure.species[ends], positions))
    own = np.concatenate([matrix.block(int(p)).ravel() for p in np.flatnonzero(matrix.pairs.on_site)])
    n_i, n_j = (int(n) for n in matrix.basis.n_orbitals[structure.species[ends]])
    between = np.flatnonzero((matrix.pairs.i == 0) & (matrix.pairs.j == 1))
    empty = np.zeros(int(np.prod(matrix.spin.shape(n_i, n_j))), dtype=matrix.spin.dtype)
    return own, matrix.block(int(between[0])).ravel() if between.size else empty
