"""The shapes in the package's signatures are checked while the tests run, and only then."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from thesis_kit import models


def classifier() -> models.Classifier:
    return models.Classifier(torch.nn.Flatten())


def test_a_wrong_shape_is_a_type_error_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        classifier()(torch.rand(2, 3))


@pytest.mark.bad_input
def test_the_checker_is_off_where_bad_input_is_meant():
    assert jaxtyping.config.jaxtyping_disable
    assert classifier()(torch.rand(2, 3)).shape == (2, 3)


def test_the_checker_is_on_again_afterwards():
    assert not jaxtyping.config.jaxtyping_disable
