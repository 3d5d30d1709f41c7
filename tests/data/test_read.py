"""A user's data are read from CSV files and from files of arrays."""

import warnings

import numpy as np
import pytest
import xarray as xr

import lazynet as lz

ROWS = np.random.default_rng(1).normal(size=(20, 3))
# Unit rows give no warning.
ROWS /= np.linalg.norm(ROWS, axis=1)[:, None]
TARGETS = np.random.default_rng(2).normal(size=20)


def write(path, targets, header="a,b,c,y", rows=ROWS):
    lines = [
        ",".join([*(repr(float(value)) for value in row), str(target)])
        for row, target in zip(rows, targets, strict=True)
    ]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def csv(tmp_path):
    return write(tmp_path / "mine.csv", TARGETS.tolist())


def test_regression_takes_the_last_column_and_holds_out_a_fifth(csv):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = lz.read_dataset(csv)
    assert (data.n_train, data.n_test, data.name, data.classes) == (16, 4, "mine", None)
    # Every row is used once, with its own target, and in the order of the file.
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    found = [int(np.flatnonzero((row == ROWS).all(axis=1))[0]) for row in x]
    assert sorted(found) == list(range(20))
    np.testing.assert_array_equal(y, TARGETS[found])
    assert found[:16] == sorted(found[:16])
    assert found[16:] == sorted(found[16:])


def test_the_split_depends_on_its_seed_only(csv):
    first, again, other = (lz.read_dataset(csv, n_test=6, split_seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    fewer = lz.read_dataset(csv, n_train=5, n_test=6, split_seed=3)
    np.testing.assert_array_equal(fewer.x_test, first.x_test)
    assert {tuple(row) for row in fewer.x_train} < {tuple(row) for row in first.x_train}
    assert lz.read_dataset(csv, n_test=0).n_test == 0


@pytest.mark.filterwarnings("ignore:The rows in mine.csv")
def test_another_column_can_be_the_target(csv):
    data = lz.read_dataset(csv, target="b", n_test=0)
    np.testing.assert_array_equal(data.x_train, np.column_stack([ROWS[:, [0, 2]], TARGETS]))
    np.testing.assert_array_equal(data.y_train, ROWS[:, 1])


@pytest.mark.parametrize(
    ("targets", "classes", "encoded"),
    [
        (["b", "a"], ["a", "b"], [-1, 1]),
        (["3", "7"], [3, 7], [1, -1]),
        (["-1", "1"], [1, -1], [-1, 1]),
        (["True", "False"], ["False", "True"], [-1, 1]),
    ],
)
def test_text_and_whole_numbers_are_classes(targets, classes, encoded, tmp_path):
    data = lz.read_dataset(write(tmp_path / "two.csv", targets * 10), n_test=0)
    assert data.classes == classes
    np.testing.assert_array_equal(data.y_train, encoded * 10)


def test_more_classes_are_one_hot(tmp_path):
    data = lz.read_dataset(write(tmp_path / "three.csv", ["x", "z", "y", "x"] * 5), n_test=0)
    assert data.classes == ["x", "y", "z"]
    np.testing.assert_allclose(data.y_train[:3], np.eye(3)[[0, 2, 1]] - 1 / 3)


@pytest.mark.parametrize("end", [".npz", ".nc"])
def test_files_of_arrays(end, tmp_path):
    arrays = {"x_train": ROWS[:12], "y_train": TARGETS[:12], "x_test": ROWS[12:], "y_test": TARGETS[12:]}
    file = tmp_path / f"arrays{end}"

    def store(arrays):
        if end == ".npz":
            np.savez(file, **arrays)
        else:
            dims = {"x_train": ("n", "d"), "y_train": "n", "x_test": ("t", "d"), "y_test": "t"}
            xr.Dataset({name: (dims[name], array) for name, array in arrays.items()}).to_netcdf(file, engine="h5netcdf")

    store(arrays)
    data = lz.read_dataset(file)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(data, name), array)
    few = lz.read_dataset(file, n_train=5, n_test=2)
    np.testing.assert_array_equal(few.x_train, ROWS[:5])
    np.testing.assert_array_equal(few.y_test, TARGETS[12:14])
    with pytest.raises(ValueError, match=r"^n_test must be at most 8 for "):
        lz.read_dataset(file, n_test=9)
    store({name: arrays[name] for name in ("x_train", "y_train")})
    assert lz.read_dataset(file, n_test=4).n_train == 8


def test_standardized_data_have_no_mean_and_unit_rows(tmp_path):
    x = ROWS * [5, 0.1, 0] + [100, -3, 7]
    data = lz.read_dataset(write(tmp_path / "raw.csv", 20 + 3 * TARGETS, rows=x), n_test=6, standardize=True)
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-12)
    # The constant input is zero, and the two others have the variance 1/2.
    np.testing.assert_allclose(data.x_train.var(axis=0), [0.5, 0.5, 0], atol=1e-12)
    assert np.mean(np.sum(data.x_train**2, axis=1)) == pytest.approx(1)
    assert data.y_train.mean() == pytest.approx(0, abs=1e-12)
    assert data.y_train.std() == pytest.approx(1)
    kept = write(tmp_path / "classes.csv", ["a", "b"] * 10, rows=x)
    assert set(lz.read_dataset(kept, standardize=True).y_train) == {-1, 1}


def test_test_examples_are_scaled_as_the_training_examples_are(tmp_path):
    file = write(tmp_path / "raw.csv", TARGETS)
    raw, scaled = (lz.read_dataset(file, n_test=6, standardize=standardize) for standardize in (False, True))
    mean, deviation = raw.x_train.mean(axis=0), raw.x_train.std(axis=0)
    np.testing.assert_allclose(scaled.x_test, (raw.x_test - mean) / deviation / 3**0.5, atol=1e-12)
    np.testing.assert_allclose(scaled.y_test, (raw.y_test - raw.y_train.mean()) / raw.y_train.std(), atol=1e-12)


def test_vectors_and_constants_are_standardized_too(tmp_path):
    y = np.column_stack([TARGETS + 3, 0 * TARGETS + 5])
    np.savez(tmp_path / "vectors.npz", x_train=ROWS, y_train=y)
    with pytest.warns(UserWarning, match=r"have the mean 5 and the standard deviation 0"):
        lz.read_dataset(tmp_path / "vectors.npz", n_test=0)
    data = lz.read_dataset(tmp_path / "vectors.npz", n_test=0, standardize=True)
    np.testing.assert_allclose(data.y_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(data.y_train.std(axis=0), [1, 0], atol=1e-12)
    two = lz.read_dataset(write(tmp_path / "two.csv", [0.0, 1.0] * 10), n_test=0, standardize=True)
    np.testing.assert_allclose(two.y_train, [-1, 1] * 10)


def test_spaces_around_names_and_values_do_not_matter(tmp_path):
    (tmp_path / "spaces.csv").write_text(" a , kind \n1, x\n1,y\n")
    data = lz.read_dataset(tmp_path / "spaces.csv", target="kind", n_test=0)
    assert data.classes == ["x", "y"]


def test_data_that_need_scaling_are_named(tmp_path):
    with pytest.warns(UserWarning, match=r"raw\.csv have the mean .* and the standard deviation .* standardize=True"):
        lz.read_dataset(write(tmp_path / "raw.csv", 20 + TARGETS))
    rows = ROWS * np.where(np.arange(20) == 3, 3, 1)[:, None]
    with pytest.warns(UserWarning, match=r"long\.csv have norms from 1 to 3, and rows of large norm"):
        lz.read_dataset(write(tmp_path / "long.csv", TARGETS, rows=rows), n_test=0)


BAD = {
    "no such file": ("nothing.csv", None, {}, FileNotFoundError, "^path must be a file"),
    "another kind": ("data.txt", "a,b\n1,2\n", {}, ValueError, r"^path must end with \.csv, \.npz or \.nc"),
    "empty": ("data.csv", "", {}, ValueError, "cannot be read as CSV"),
    "header only": ("data.csv", "a,b\n", {}, ValueError, "must have a header, .* and at least one row"),
    "no header": (
        "data.csv",
        "1,-2.5\n3,4\n",
        {},
        ValueError,
        "must begin with a header, but all names",
    ),
    "one column": ("data.csv", "a\n1\n", {}, ValueError, "at least two columns"),
    "unknown target": ("data.csv", "a,b\n1,2\n", {"target": "c"}, ValueError, "^target must be one of a, b, got 'c'"),
    "text input": ("data.csv", "a,b\n1,2\nx,3\n", {}, ValueError, "column 'a' contains 'x'"),
    "missing input": ("data.csv", "a,b\n1,2.5\n,3.5\n", {}, ValueError, "no value in column 'a' of data row 2"),
    "missing target": ("data.csv", "a,b\n1,x\n2,\n", {}, ValueError, "no value in column 'b' of data row 2"),
    "ragged": ("data.csv", "a,b\n1,2\n1,2,3\n", {}, ValueError, "cannot be read as CSV"),
    "infinite": ("data.csv", "a,b\n1,2.5\ninf,3.5\n", {"n_test": 0}, ValueError, "^x_train must be finite"),
    "one class": ("data.csv", "a,b\n1,x\n2,x\n", {}, ValueError, "at least two classes in the column 'b', got 'x'"),
    "too many rows": (
        "data.csv",
        "a,b\n1,x\n2,y\n",
        {"n_test": 2},
        ValueError,
        "^n_train and n_test must be at most 2",
    ),
    "nothing varies": ("data.csv", "a,b\n1,x\n1,y\n", {"standardize": True}, ValueError, "^standardize must be False"),
    "damaged": ("data.npz", "no archive", {}, ValueError, "cannot be read"),
    "damaged too": ("data.nc", "no archive", {}, ValueError, "cannot be read"),
    "target of arrays": ("data.npz", "", {"target": "y"}, ValueError, "^target must be None for a file of arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_a_sentence(case, tmp_path):
    name, content, options, kind, message = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=message) as refused:
        lz.read_dataset(tmp_path / name, **options)
    assert "\n" not in str(refused.value)


def test_hundreds_of_whole_numbers_are_no_classes(tmp_path):
    file = tmp_path / "counts.csv"
    file.write_text("a,b\n" + "".join(f"1,{count}\n" for count in range(150)))
    with pytest.raises(
        ValueError, match=r"at most 100 classes in the column 'b', got 150\. For regression, write whole"
    ):
        lz.read_dataset(file)


def test_arrays_that_are_missing_are_named(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=ROWS)
    with pytest.raises(ValueError, match="must contain the array y_train, got x_train"):
        lz.read_dataset(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", x_train=ROWS, y_train=TARGETS, x_test=ROWS)
    with pytest.raises(ValueError, match=r"^y_test must be given together with x_test"):
        lz.read_dataset(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", x_train=np.array([None]), y_train=TARGETS)
    with pytest.raises(ValueError, match="cannot be read"):
        lz.read_dataset(tmp_path / "data.npz")
