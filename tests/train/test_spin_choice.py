"""Whether spinor data couple spin to space is looked up in H, or asked for, and then checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import model_of, random_calculation

from hamnet.config import config_from_dict
from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation
from hamnet.core.pairs import orbital_pairs
from hamnet.core.rotation import rotate_spins
from hamnet.core.spin import Spin
from hamnet.core.structure import AtomicStructure
from hamnet.data.splits import Split
from hamnet.data.store import write_store
from hamnet.errors import PhysicsError
from hamnet.nn.checkpoint import Checkpoint, as_spinor
from hamnet.nn.dataset import StoreCollection
from hamnet.nn.model import HamiltonianModel
from hamnet.nn.prior import matrix_channels
from hamnet.predict.evaluate import evaluate
from hamnet.testing_moments import random_rotation
from hamnet.train.start import Starter


def uncoupled(seed: int) -> Calculation:
    """Collinear blocks as spinors, all spins turned."""
    calculation = random_calculation(seed, Spin.COLLINEAR, magnetic=True)
    assert calculation.hamiltonian is not None
    parts = []
    for group in calculation.hamiltonian.groups():
        zero = np.zeros_like(group.blocks[:, 0])
        up, down = np.moveaxis(group.blocks, 1, 0)
        parts.append(np.block([[up, zero], [zero, down]]).astype(complex).ravel())
    like = calculation.hamiltonian
    matrix = BlockMatrix.from_values(like.pairs, like.basis, like.species, Spin.SPINOR, np.concatenate(parts))
    rotation = random_rotation(seed)
    structure = replace(calculation.structure, moments=np.asarray(calculation.structure.moments) @ rotation.T)
    return replace(calculation, structure=structure, hamiltonian=rotate_spins(matrix, rotation))


def coupled(seed: int) -> Calculation:
    """Uncoupled but for an imaginary part of 1 meV on one place of A_z, of the size that l.s has in light atoms."""
    calculation = uncoupled(seed)
    assert calculation.hamiltonian is not None
    matrix, values = calculation.hamiltonian, calculation.hamiltonian.values.copy()
    own = int(np.flatnonzero(matrix.pairs.on_site)[0])
    n = int(matrix.basis.n_orbitals[matrix.species[matrix.pairs.i[own]]])
    block = values[matrix.offsets[own] : matrix.offsets[own + 1]].reshape(2 * n, 2 * n)
    block[0, 1] += 1e-3j
    block[1, 0] -= 1e-3j
    block[n, n + 1] -= 1e-3j
    block[n + 1, n] += 1e-3j
    return replace(calculation, hamiltonian=matrix.with_values(values))


def starter(folder: Path, calculations: list[Calculation], wanted: bool | None) -> tuple[Starter, list[str]]:
    """Over a store with all calculations; the last one is the validation part."""
    path = folder / "data.h5"
    write_store(path, ((f"c{k}", c) for k, c in enumerate(calculations)))
    names = [f"c{k}" for k in range(len(calculations))]
    lines: list[str] = []
    config = config_from_dict({"data": {"store": path, "spin_orbit": wanted}})
    return Starter(config, StoreCollection([path]), Split(tuple(names[:-1]), (names[-1],), ()), lines.append), lines


@pytest.mark.parametrize(("wanted", "expected"), [(None, False), (False, False), (True, True)])
def test_data_without_coupling(tmp_path: Path, wanted: bool | None, expected: bool) -> None:
    """Found, or confirmed, and said; the general spinor where it is asked for."""
    start, lines = starter(tmp_path, [uncoupled(0), uncoupled(1)], wanted)
    assert start.spin_orbit is expected
    assert any("none in H" in line for line in lines) is not expected


@pytest.mark.parametrize("wanted", [None, True])
def test_one_coupled_calculation_is_enough(tmp_path: Path, wanted: bool | None) -> None:
    """A millielectronvolt of coupling, in the validation part."""
    start, lines = starter(tmp_path, [uncoupled(0), coupled(1)], wanted)
    assert start.spin_orbit
    assert not lines


def test_coupled_data_are_refused_where_none_was_promised(tmp_path: Path) -> None:
    """With the name and the numbers."""
    start, _ = starter(tmp_path, [uncoupled(0), coupled(1)], False)
    with pytest.raises(PhysicsError, match=r"H of c1 is not .* up to 0\.001 eV \(allowed 0\.0001\)"):
        _ = start.spin_orbit


def test_collinear_data_are_not_asked(tmp_path: Path) -> None:
    """Up and down know no direction of space."""
    start, lines = starter(tmp_path, [random_calculation(k, Spin.COLLINEAR, magnetic=True) for k in (0, 1)], None)
    assert start.spin_orbit
    assert not lines


@pytest.mark.parametrize(("spin", "magnetic"), [(Spin.NONE, False), (Spin.COLLINEAR, False), (Spin.COLLINEAR, True)])
def test_starts_as_the_model_it_is_given(tmp_path: Path, spin: Spin, magnetic: bool) -> None:
    """Collinear with moments: the same model. Without: A_0 is kept where moments are zero, and A starts at zero."""
    source = model_of(spin, magnetic=magnetic)
    start, _ = starter(tmp_path, [uncoupled(0), uncoupled(1)], None)
    network = source.settings.model_copy(update={"baseline": "none"})
    config = start.config.model_copy(update={"network": network})
    given = Checkpoint(source, config, source.basis, spin, source.statistics)
    found = replace(start, config=config, source=given).run()
    assert (found.spin, found.model.axes, found.model.magnetic) == (Spin.SPINOR, 3, True)
    structure = uncoupled(0).structure
    new = matrix_channels(evaluate_all(found.model, structure), True)
    if magnetic:
        old = matrix_channels(evaluate_all(as_spinor(given).model, structure), True)
        # the new model is in float32
        np.testing.assert_allclose(new, old, atol=1e-5)
    else:
        assert not new[:, 5:].any()
        bare = replace(structure, moments=None)
        old = matrix_channels(evaluate_all(source, bare))
        np.testing.assert_allclose(matrix_channels(evaluate_all(found.model, bare))[:, 0], old[:, 0], atol=1e-5)


def evaluate_all(model: HamiltonianModel, structure: AtomicStructure) -> BlockMatrix:
    """H on all pairs that the orbitals reach."""
    return evaluate(model, structure, orbital_pairs(structure, model.basis), torch.device("cpu"))
