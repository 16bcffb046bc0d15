"""Errors of hamnet: one root, one class for each kind of fault a user can meet.

Every message says what was found, what was expected, where (file, byte, pair, key) and what to do.
"""


class HamnetError(Exception):
    """Root of all errors that hamnet raises on purpose; the command line prints it without a traceback."""


class ConfigError(HamnetError):
    """A configuration or a command-line argument is wrong: unknown key, wrong type, missing file."""


class FormatError(HamnetError):
    """A file does not follow its format: cut short, wrong version, text where binary was expected."""


class BasisError(HamnetError):
    """Orbitals do not fit: a species without a basis, an element that a model does not know."""


class PhysicsError(HamnetError):
    """Data break a physical law: S not positive definite, H not hermitian, two atoms on one place."""


class ConvergenceError(HamnetError):
    """An iteration (SCF, eigensolver, training) did not converge, so its result must not be used."""
