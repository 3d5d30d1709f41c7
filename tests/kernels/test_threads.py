"""Test the limits on the number of BLAS threads."""

import numpy as np
from threadpoolctl import ThreadpoolController

from lazynet.kernels._threads import FEW, _libraries, narrow_products


def blas_threads():
    return {library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers}


def test_blas_has_one_thread_for_matrices_of_few_rows():
    np.linalg.eigvalsh(np.eye(2))
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        with narrow_products():
            assert blas_threads() == {1}
        with narrow_products(FEW), narrow_products(FEW):
            assert blas_threads() == {1}
        with narrow_products(FEW + 1):
            assert blas_threads() == {2}
        assert blas_threads() == {2}


def test_the_libraries_that_are_found_once_are_all_of_them():
    all_of_them = {library.filepath for library in ThreadpoolController().select(user_api="blas").lib_controllers}
    assert {library.filepath for library in _libraries().select(user_api="blas").lib_controllers} == all_of_them
