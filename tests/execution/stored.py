"""A sweep that the tests of run folders stop, damage and share, and a comparison of its results."""

import xarray as xr

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
# Number of bytes that one step of four members of width 8 uses.
SMALL = 2 * 4 * 16 * 80
# This sweep makes no predictions; test_resume.py resumes cells with predictions from a checkpoint.
MEASURE = lz.Measure(predictions=False)
HOST = {"start_time", "device", "git_revision"}


def sweep(out, **options):
    return lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], 4, 12, measure=MEASURE, out=out, **options)


def resumed(path, **options):
    return sweep(lz.RunFolder(path, resume=True), **options)


def assert_same(first, second):
    xr.testing.assert_identical(first.drop_attrs(deep=False), second.drop_attrs(deep=False))
    assert {k: v for k, v in first.attrs.items() if k not in HOST} == {
        k: v for k, v in second.attrs.items() if k not in HOST
    }
