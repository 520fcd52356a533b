"""Dropout's masks: as random as they must be, and the same however a step is computed."""

import numpy as np
import pytest
from tests.unit.test_training_loss import random_samples

from tunesmith.training.tree.tree import build_tree

pytestmark = pytest.mark.engine
RATE = 0.1


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, dropout, KeyedDropout, StepKeys
    import torch

    from tunesmith.training import dropout
    from tunesmith.training.dropout import KeyedDropout, StepKeys


def masks(keys, width=256, *, seed=1, step=0, layer=5):
    """What is kept of each token, shape (tokens, width)."""
    of_step = StepKeys(seed)
    of_step.step = step
    of_step.use(torch.from_numpy(keys.view(np.int64))[None])
    return KeyedDropout(RATE, of_step, layer).train().kept(torch.ones(1, len(keys), width))


def keys_of(count):
    return dropout.row_keys(np.arange(3, 3 + count)[None])[0]


def test_a_token_has_the_same_key_in_a_tree_as_in_its_row():
    samples = random_samples(12, seed=2)
    ids = [np.array(sample.ids, np.int32) for sample in samples]
    tree = build_tree(ids, [np.array(sample.weights, np.float32) for sample in samples])
    of_tree = dropout.tree_keys(tree)
    for sample, ranges in zip(ids, tree.samples, strict=True):
        tokens = np.concatenate([np.arange(*each) for each in ranges])
        padded = np.pad(sample, (0, 7))[None].astype(np.int64)
        assert (of_tree[tokens] == dropout.row_keys(padded)[0, : len(sample)]).all()


def test_other_beginnings_and_other_places_have_other_keys():
    rows = np.array([[5, 6, 7, 7], [6, 5, 7, 7], [5, 6, 7, 8]])
    keys = dropout.row_keys(rows)
    assert (keys[0, :3] == keys[2, :3]).all()
    assert len(np.unique(keys)) == 4 + 4 + 1


@pytest.mark.parametrize("change", [{"seed": 2}, {"step": 1}, {"layer": 6}])
def test_masks_differ_by_seed_step_and_layer_as_if_they_were_drawn(change):
    keys = keys_of(1000)
    one, other = masks(keys), masks(keys, **change)
    assert (one == masks(keys)).all()
    agree = (one == other).double().mean().item()
    assert agree == pytest.approx((1 - RATE) ** 2 + RATE**2, abs=0.01)


def test_tokens_and_columns_are_dropped_at_the_rate_and_independently():
    kept = masks(keys_of(2000), 512).double()
    assert kept.mean().item() == pytest.approx(1 - RATE, abs=0.002)
    spread = RATE * (1 - RATE)
    for matrix in (kept, kept.T):
        width = matrix.shape[1]
        assert matrix.mean(1).std().item() == pytest.approx((spread / width) ** 0.5, rel=0.15)
        centred = matrix - matrix.mean()
        correlation = centred @ centred.T / width / spread
        correlation.fill_diagonal_(0)
        assert correlation.std().item() == pytest.approx(width**-0.5, rel=0.05)
        assert correlation.abs().max().item() < 6.5 * width**-0.5


def test_masks_in_parts_are_the_same(monkeypatch):
    whole = masks(keys_of(100))
    monkeypatch.setattr(dropout, "AT_ONCE", 1000)
    assert (masks(keys_of(100)) == whole).all()


def test_what_is_kept_is_larger_and_its_gradient_too():
    of_step = StepKeys(1)
    of_step.use(torch.from_numpy(keys_of(50).view(np.int64))[None])
    layer = KeyedDropout(0.5, of_step, 1).train()
    x = torch.ones(1, 50, 16, requires_grad=True)
    made = layer(x)
    made.sum().backward()
    assert set(made.unique().tolist()) == {0.0, 2.0}
    assert (x.grad == made).all()
    assert layer.eval()(x) is x


def test_what_does_not_come_by_token_is_dropped_at_random():
    of_step = StepKeys(1)
    of_step.use(torch.from_numpy(keys_of(50).view(np.int64))[None])
    layer = KeyedDropout(0.5, of_step, 1).train()
    x = torch.ones(31, 16)  # what a router has chosen
    assert layer.kept(x) is None
    assert not torch.equal(layer(x), layer(x))
