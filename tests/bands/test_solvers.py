"""Large-cell solvers against LAPACK: states, counts, the certificate, bad overlaps, memory, folding."""

from dataclasses import replace

import numpy as np
import pytest
from factories import lawful_calculation
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from scipy.sparse import csr_matrix

from hamnet.bands.solvers import DenseEigensolver, SparseEigensolver, make_eigensolver, pardiso
from hamnet.bands.solvers import factor as factors
from hamnet.bands.solvers import sparse as sparse_module
from hamnet.bands.solvers.factor import Kind, NotPositiveDefinite, embedded, embedded_data, make_factor
from hamnet.bands.solvers.lanczos import nearest_states
from hamnet.core.bloch import BlochSum
from hamnet.core.bloch_sparse import SparseBloch, SparsePattern
from hamnet.core.calculation import Calculation
from hamnet.core.spin import Spin
from hamnet.core.supercell import supercell
from hamnet.errors import ConfigError, ConvergenceError, PhysicsError
from hamnet_preprocess.openmx import OpenMXReader

ENGINES = [
    pytest.param("pardiso", marks=pytest.mark.skipif(not pardiso.is_available(), reason="the wheel mkl is not here")),
    "superlu",
]
GENERAL = np.array([0.13, -0.21, 0.34])
ZONE_EDGE = np.array([0.5, 0.0, 0.5])


@pytest.fixture(scope="module")
def cells() -> dict[Spin, Calculation]:
    """168 rows (spinor: 336): far more than the states that are asked for."""
    return {spin: supercell(lawful_calculation(3, spin), (3, 2, 1)) for spin in Spin}


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 99), spin=st.sampled_from(list(Spin)), k=st.tuples(*[st.floats(-1, 1)] * 3), upper=st.booleans()
)
def test_sparse_sum_on_a_common_pattern_is_the_dense_one(seed: int, spin: Spin, k: tuple, upper: bool) -> None:
    calculation = lawful_calculation(seed, spin)
    pattern = SparsePattern.of([calculation.hamiltonian, calculation.overlap], spin, upper)
    dense_s = BlochSum(calculation.overlap).dense(np.array(k))
    dense_h = BlochSum(calculation.hamiltonian).dense(np.array(k)).reshape(-1, pattern.size, pattern.size)
    if spin is Spin.SPINOR:
        dense_s = np.kron(np.eye(2), dense_s)
    cut = np.triu if upper else np.asarray
    h, s = SparseBloch(calculation.hamiltonian, pattern), SparseBloch(calculation.overlap, pattern)
    # 1e-12: sums of some ten numbers of order one in another order
    for channel, wanted in enumerate(dense_h):
        np.testing.assert_allclose(pattern.matrix(h.data(np.array(k), channel)).toarray(), cut(wanted), atol=1e-12)
    np.testing.assert_allclose(pattern.matrix(s.data(np.array(k))).toarray(), cut(dense_s), atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [GENERAL, ZONE_EDGE], ids=["general", "edge"])
@pytest.mark.parametrize("spin", list(Spin))
def test_states_equal_those_of_lapack(cells: dict, spin: Spin, k: np.ndarray, engine: str) -> None:
    sparse = SparseEigensolver(cells[spin], engine).window(k, 0.3, 12, vectors=True)
    dense = DenseEigensolver(cells[spin]).window(k, 0.3, 12, vectors=True)
    assert len(sparse) == len(dense) == (2 if spin is Spin.COLLINEAR else 1)
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.certified
        assert len(ours.energies) >= 12
        offset = ours.first - theirs.first
        common = slice(max(0, -offset), min(len(ours.energies), len(theirs.energies) - offset))
        wanted = theirs.energies[common.start + offset : common.stop + offset]
        np.testing.assert_allclose(ours.energies[common], wanted, atol=1e-9)  # eV, as promised
        assert len(wanted) >= 12
        norm = ours.vectors.conj().T @ ours.overlap_vectors
        np.testing.assert_allclose(norm, np.eye(len(norm)), atol=1e-10)  # orthonormal in S, degenerate ones too


def random_pencil(seed: int, real: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sparse hermitian H and positive definite S of 30 rows."""
    rng = np.random.default_rng(seed)
    n = 30
    mask = np.triu(rng.uniform(size=(n, n)) < 0.2, 1)
    h, s = (np.where(mask, rng.normal(size=(n, n)) + (0 if real else 1j) * rng.normal(size=(n, n)), 0) for _ in "hs")
    s = 0.05 * s
    h = h + h.conj().T + np.diag(rng.normal(size=n))
    return h, s + s.conj().T + np.eye(n)


def upper_pattern(matrix: np.ndarray) -> tuple[SparsePattern, np.ndarray]:
    """Full upper triangle of a small matrix as pattern and numbers."""
    n = len(matrix)
    upper = csr_matrix(np.triu(np.ones((n, n))))
    nothing = np.zeros(0, dtype=np.int64)
    pattern = SparsePattern(Spin.NONE, True, upper.indptr.astype(np.int64), upper.indices, nothing, nothing, nothing)
    return pattern, matrix[np.triu_indices(n)]


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999), real=st.booleans(), energy=st.floats(-4, 4))
def test_inertia_counts_the_eigenvalues_below(engine: str, seed: int, real: bool, energy: float) -> None:
    h, s = random_pencil(seed, real)
    below = int((linalg.eigh(h, s, eigvals_only=True) < energy).sum())
    pattern, data = upper_pattern(h - energy * s)
    factor = make_factor(pattern, Kind.REAL if real else Kind.EMBEDDED, engine)
    factor.factorise(data)
    assert factor.negative == below


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 9999))
def test_real_embedding_has_every_eigenvalue_twice(seed: int) -> None:
    h, _ = random_pencil(seed, False)
    pattern, data = upper_pattern(h)
    indptr, indices = embedded(pattern.indptr, pattern.indices)
    n = 2 * len(h)
    upper = csr_matrix((embedded_data(pattern.indptr, data), indices, indptr), shape=(n, n)).toarray()
    full = upper + np.triu(upper, 1).T
    np.testing.assert_array_equal(np.tril(upper, -1), 0)
    # 1e-12: LAPACK on 60 rows of order one
    np.testing.assert_allclose(np.linalg.eigvalsh(full), np.repeat(np.linalg.eigvalsh(h), 2), atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [Kind.REAL_POSITIVE, Kind.HERMITIAN_POSITIVE])
def test_a_matrix_that_is_not_positive_definite_is_refused(engine: str, kind: Kind) -> None:
    h, s = random_pencil(1, kind is Kind.REAL_POSITIVE)
    pattern, data = upper_pattern(s)
    factor = make_factor(pattern, kind, engine)
    factor.factorise(data)
    with pytest.raises(NotPositiveDefinite):
        factor.factorise(upper_pattern(h)[1])


@pytest.mark.parametrize("spin", list(Spin))
def test_counts_equal_those_of_lapack(cells: dict, spin: Spin) -> None:
    sparse, dense = SparseEigensolver(cells[spin], "superlu"), DenseEigensolver(cells[spin])
    for energy in (-2.0, 0.1, 1.7):
        np.testing.assert_array_equal(sparse.count(GENERAL, energy), dense.count(GENERAL, energy))


def test_a_hidden_state_fails_the_certificate(cells: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def hide(*arguments: object) -> tuple:
        """The solver loses the state that is nearest to the centre."""
        theta, vectors, mapped = nearest_states(*arguments)
        return theta[1:], vectors[:, 1:], mapped[:, 1:]

    monkeypatch.setattr(sparse_module, "nearest_states", hide)
    solver = SparseEigensolver(cells[Spin.NONE], "superlu")
    with pytest.raises(ConvergenceError, match="some were missed"):
        solver.window(GENERAL, 0.3, 12)
    assert not solver.window(GENERAL, 0.3, 12, certify=False)[0].certified


def test_a_wrong_solution_is_refused(cells: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(*arguments: object) -> tuple:
        """Energies a little off."""
        theta, vectors, mapped = nearest_states(*arguments)
        return theta * (1 + 1e-4), vectors, mapped

    monkeypatch.setattr(sparse_module, "nearest_states", spoil)
    with pytest.raises(ConvergenceError, match="residual"):
        SparseEigensolver(cells[Spin.NONE], "superlu").window(GENERAL, 0.3, 12)


def test_degeneracy_beyond_the_block_is_found() -> None:
    rng = np.random.default_rng(0)
    levels = np.concatenate((np.full(15, 0.5), rng.uniform(1, 9, 285)))
    turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    inverse = turn / levels @ turn.T
    theta, _, _ = nearest_states(inverse.__matmul__, lambda x: x, 300, 20, np.float64, 16)
    np.testing.assert_allclose(np.sort(1 / theta)[:15], 0.5, atol=1e-12)  # rounding of numbers of order one


def test_a_shift_on_an_eigenvalue_is_no_trouble(cells: dict) -> None:
    energies = linalg.eigvalsh(
        BlochSum(cells[Spin.NONE].hamiltonian).dense(GENERAL), BlochSum(cells[Spin.NONE].overlap).dense(GENERAL)
    )
    solver = SparseEigensolver(cells[Spin.NONE], "auto")
    found = solver.window(GENERAL, float(energies[80]), 12)[0]
    last = found.first + len(found.energies)
    np.testing.assert_allclose(found.energies, energies[found.first : last], atol=1e-9)  # eV, as promised


def test_overlap_that_is_not_positive_definite_is_refused(cells: dict) -> None:
    calculation = cells[Spin.NONE]
    values = calculation.overlap.values.copy()
    values[calculation.overlap.offsets[0]] = -1.0  # a negative norm
    broken = replace(calculation, overlap=calculation.overlap.with_values(values))
    with pytest.raises(PhysicsError, match="not positive definite"):
        SparseEigensolver(broken, "auto").count(GENERAL, 0.0)


def test_least_mode_of_the_overlap_is_reported() -> None:
    calculation = supercell(OpenMXReader().read(golden("openmx/graphene")), (3, 3, 1))
    exact = np.linalg.eigvalsh(BlochSum(calculation.overlap).dense(GENERAL))[0]
    # inverse iteration bounds it from above, to a part in five
    assert exact - 1e-12 <= SparseEigensolver(calculation).prove_overlap(GENERAL) <= 1.2 * exact


def test_a_matrix_that_is_not_hermitian_is_refused(cells: dict) -> None:
    calculation = cells[Spin.NONE]
    values = calculation.hamiltonian.values.copy()
    values[-2] += 1e-3  # off the diagonal
    with pytest.raises(PhysicsError, match="not hermitian"):
        SparseEigensolver(replace(calculation, hamiltonian=calculation.hamiltonian.with_values(values)))


def test_memory_is_asked_for_before_it_is_taken(cells: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "available_memory", lambda: 1000)
    with pytest.raises(PhysicsError, match="GB are free"):
        SparseEigensolver(cells[Spin.NONE]).window(GENERAL, 0.3, 12)


def test_choice_of_solver(cells: dict) -> None:
    assert isinstance(make_eigensolver(cells[Spin.NONE]), DenseEigensolver)
    assert isinstance(make_eigensolver(cells[Spin.NONE], "superlu"), SparseEigensolver)
    with pytest.raises(ConfigError, match="expected one of"):
        make_eigensolver(cells[Spin.NONE], "magic")
    with pytest.raises(ConfigError, match="--engine dense"):
        make_eigensolver(cells[Spin.NONE], "superlu", project_overlap=1e-6)


def test_states_of_a_supercell_are_the_folded_ones() -> None:
    small = OpenMXReader().read(golden("openmx/graphene"))
    window = SparseEigensolver(supercell(small, (5, 4, 1))).window(GENERAL * [1, 1, 0], small.fermi_energy, 16)[0]
    primitive = DenseEigensolver(small)
    folded = [
        primitive.all_energies((GENERAL * [1, 1, 0] + [i, j, 0]) / [5, 4, 1])[0] for i in range(5) for j in range(4)
    ]
    wanted = np.sort(np.concatenate(folded))[window.first : window.first + len(window.energies)]
    np.testing.assert_allclose(window.energies, wanted, atol=1e-9)  # eV, as promised
