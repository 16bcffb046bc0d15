"""Fixtures for all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import golden_files


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """tests/golden, files as they are; use golden_files.golden(name) for unpacked ones."""
    return golden_files.GOLDEN


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared data folder (files may be .xz); the test is skipped without it."""
    root = golden_files.shared_root()
    if root is None:
        pytest.skip("the shared data is not here: set HAMNET_SHARED_DATA")
    return root
