"""Splits are reproducible, complete and never share a calculation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamnet.data.splits import Split, random_split, read_split
from hamnet.errors import ConfigError

NAMES = [f"c{k:03d}" for k in range(20)]


@given(st.integers(1, 60), st.floats(0, 0.49), st.floats(0, 0.5), st.integers(0, 5), st.randoms())
def test_parts_cover_all_names_once(n, validation, test, seed, random):
    names = [f"n{k}" for k in range(n)]
    split = random_split(names, validation, test, seed)
    assert sorted(split.train + split.validation + split.test) == sorted(names)
    assert split.train
    random.shuffle(names)
    assert random_split(names, validation, test, seed) == split


def test_fractions_and_seed():
    split = random_split(NAMES, 0.2, 0.1, seed=1)
    assert (len(split.train), len(split.validation), len(split.test)) == (14, 4, 2)
    assert random_split(NAMES, 0.2, 0.1, seed=2) != split


@pytest.mark.parametrize("fractions", [(-0.1, 0.0), (0.5, 0.5), (float("nan"), 0.0)])
def test_bad_fractions(fractions):
    with pytest.raises(ConfigError, match="fractions"):
        random_split(NAMES, *fractions)


def test_nothing_to_split():
    with pytest.raises(ConfigError, match="nothing to split"):
        random_split([], 0.1, 0.1)


def test_a_split_file_round_trip(tmp_path):
    split = random_split(NAMES, 0.2, 0.1)
    split.write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json", NAMES) == split
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["c000", "c000"]}, "'c000' twice, in train and in train"),
        ({"train": ["c000"], "test": ["c000"]}, "in train and in test"),
        ({"train": ["c000", "zzz"]}, "train part names 1 .*'zzz'"),
        ({"training": ["c000"]}, "holds .'training'.*expected"),
        ({"train": "c000"}, "not a list"),
        ({"test": ["c000"]}, "train part is empty"),
        (["c000"], "holds list"),
    ],
)
def test_bad_split_files(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read_split(path, NAMES)


def test_a_split_that_nothing_trains_on_may_have_a_test_part_alone(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"test": ["c000"]}))
    assert read_split(path, NAMES, to_train=False).test == ("c000",)


def test_no_json_and_no_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_split(tmp_path / "bad.json", NAMES)
    with pytest.raises(ConfigError, match="no split file"):
        read_split(tmp_path / "absent.json", NAMES)
    with pytest.raises(ConfigError, match="twice"):
        Split(("a",), ("a",))
