from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bac.caching.similarity import caching_error, cosine_similarity

features = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 5)),
    elements=st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


def test_orthogonal_opposite_and_parallel_features():
    similarity = cosine_similarity([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [5.0, 0.0]])
    np.testing.assert_array_equal(similarity, [[1, 0, -1, 1], [0, 1, 0, 0], [-1, 0, 1, -1], [1, 0, -1, 1]])


def test_two_zero_outputs_are_alike_and_a_zero_and_another_are_not():
    np.testing.assert_array_equal(cosine_similarity([[0.0], [0.0], [1.0]]), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


@given(features)
def test_similarity_is_symmetric_with_a_unit_diagonal_and_in_range(values):
    similarity = cosine_similarity(values)
    assert similarity.dtype == np.float64 and similarity.shape == (len(values), len(values))
    np.testing.assert_array_equal(similarity, similarity.T)
    np.testing.assert_array_equal(np.diag(similarity), 1.0)
    assert np.abs(similarity).max() <= 1.0


def test_caching_error_is_the_mean_over_pairs_of_steps():
    # |0 - 1| = 1, |0 - 5| = 5, |1 - 5| = 4: mean 10 / 3.
    assert caching_error([[0.0], [1.0], [5.0]]) == pytest.approx(10 / 3)


@given(features)
def test_caching_error_equals_the_sum_over_all_pairs(values):
    pairs = [np.abs(values[i] - values[j]).mean() for j in range(len(values)) for i in range(j)]
    assert caching_error(values) == pytest.approx(np.mean(pairs) if pairs else 0.0)


def test_bfloat16_tensors_are_taken():
    assert caching_error(torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16)) == 2.0


@pytest.mark.parametrize("function", [cosine_similarity, caching_error])
@pytest.mark.parametrize(
    ("values", "message"),
    [([[1.0], [float("nan")]], "must be finite"), (np.zeros((0, 3)), "at least one step"), (1.0, "at least one step")],
)
def test_bad_features_are_refused(function, values, message):
    with pytest.raises(ValueError, match=message):
        function(values)
