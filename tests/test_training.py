"""The example of docs/training.rst: a network learns, and comes out the same every time."""

import importlib.util
from pathlib import Path

import pytest

import pyconv

from .calls import same_bits

EXAMPLE = Path(__file__).parent.parent / "docs/example_training/digits.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(example):
    pytest.importorskip("sklearn", reason="the pictures of digits are scikit-learn's")
    return example.load()


def test_the_network_learns(example, data):
    images, digits = data
    held_out = example.HELD_OUT
    network, losses = example.train(images[held_out:], digits[held_out:])
    assert losses[-1] < losses[0] / 10
    assert losses[-1] < losses[len(losses) // 2] < losses[0]
    assert example.accuracy(network, images[:held_out], digits[:held_out]) > 0.95
    # the offsets have been learnt as well: taps have left their places
    assert abs(network.offset.weights["weight"]).max() > 0.05


def test_the_same_bits_every_time(example, data):
    images, digits = data
    weights = []
    for threads in (1, 2, 1):
        with pyconv.threads(threads):
            network, _ = example.train(images[:400], digits[:400], epochs=2)
        weights.append([w for layer in network.layers for w in layer.weights.values()])
    for others in weights[1:]:
        assert all(map(same_bits, weights[0], others))
