"""The sweep that tests of stored sweeps stop, damage and share."""

import xarray as xr

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
HOST = {"start_time", "device", "git_revision"}


def sweep(out, resume=False, **more):
    return lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], 4, 12, out=out, resume=resume, **more)


def assert_same(one, other):
    xr.testing.assert_identical(one.drop_attrs(deep=False), other.drop_attrs(deep=False))
    assert {k: v for k, v in one.attrs.items() if k not in HOST} == {
        k: v for k, v in other.attrs.items() if k not in HOST
    }
