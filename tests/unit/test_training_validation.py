"""The validation loss by record: each sample's own sum, however samples are packed and shared out."""

import math

import numpy as np
import pytest
from tests.fixtures.steps import load, write_table
from tests.unit.test_training_loss import random_samples

from tunesmith.training.sampler import StepSizes, evaluation
from tunesmith.training.weighting import denominator

pytestmark = pytest.mark.engine
COUNT = 12


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, ValidationSums, by_record, collate, collate_tree, fuse_head, label_losses
    import torch

    from tunesmith.training.batches import collate, collate_tree
    from tunesmith.training.fused_cross_entropy import fuse_head
    from tunesmith.training.loss import label_losses
    from tunesmith.training.validation import ValidationSums, by_record


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    samples = random_samples(COUNT, seed=4)
    samples.append(samples[3])  # the same again, and another weight for the same labels
    samples.append(type(samples[0])(samples[5].ids, [2 * w for w in samples[5].weights]))
    return write_table(tmp_path_factory.mktemp("validation") / "t", samples)


@pytest.fixture(scope="module")
def models(tiny_model):
    """(head) -> a model that accepts trees, with the fused head or without."""
    from tunesmith.training.tree_check import use_tree_attention

    made = {}
    for fused in (False, True):
        model = load(tiny_model).eval()
        use_tree_attention(model)
        made[fused] = model, fuse_head(model) if fused else None
    return made


def sums_of(table, model, head, reduction, *, trees, world):
    """Σ v and Σ v ℓ of every sample, as the ranks together find them; shape (2, samples)."""
    total, sizes = 0, StepSizes(3, 6, world)
    for rank in range(world):
        found = ValidationSums(table, reduction)
        for indices in evaluation(table, sizes, 120 if trees else None, rank):
            made = collate_tree if trees else collate
            batch = made(table, indices, reduction, 0)
            with torch.no_grad():
                found.add(indices, batch, label_losses(model, batch, torch.device("cpu"), head))
        total = total + found.sums()
    return total.numpy().reshape(2, -1)


def naive(table, model, reduction):
    """Σ v ℓ of every sample straight from the formula."""
    sums = []
    for number in range(len(table)):
        ids, weights = table.ids(number), table.weights(number)
        logits = model(input_ids=torch.tensor(ids[None], dtype=torch.int64)).logits[0].double()
        labels = [t for t in range(1, len(ids)) if weights[t] > 0]
        losses = [-torch.log_softmax(logits[t - 1], -1)[int(ids[t])].item() * weights[t] for t in labels]
        sums.append(sum(losses) / (len(labels) if reduction == "sampleMean" else 1))
    return sums


@pytest.mark.parametrize("reduction", ["tokenMean", "sampleMean"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_each_sample_has_its_own_sum_however_it_is_packed(table, models, reduction, fused):
    model, head = models[fused]
    with torch.no_grad():
        wanted = naive(table, models[False][0], reduction)
    for trees, world in ((False, 1), (True, 1), (False, 3), (True, 2)):
        weights, losses = sums_of(table, model, head, reduction, trees=trees, world=world)
        assert losses == pytest.approx(wanted, rel=1e-5), (trees, world)
        everyone = range(len(table))
        assert weights.tolist() == [denominator(table, np.array([n]), reduction) for n in everyone]


def test_losses_are_also_read_in_parts(table, models, monkeypatch):
    whole = sums_of(table, *models[True], "tokenMean", trees=True, world=1)
    monkeypatch.setattr("tunesmith.training.validation.READ_AT_ONCE", 0)
    assert (sums_of(table, *models[True], "tokenMean", trees=True, world=1) == whole).all()


def test_samples_of_a_record_are_added_up():
    keys = np.array([7, -1, 7, 3])
    found = by_record(keys, np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 2.0, 8.0]))
    assert found.keys.tolist() == [3, 7, 2**64 - 1]
    assert found.samples.tolist() == [1, 2, 1]
    assert (found.weights.tolist(), found.losses.tolist()) == ([4, 4, 2], [8, 3, 1])
    assert found.loss == 1.2
    assert found.records == 3
    assert found.as_dict(6)["losses"][2] == {
        "key": "f" * 16, "samples": 1, "weight": 2.0, "weightedLoss": 1.0,
    }  # fmt: skip


def test_many_records_are_merged_and_the_loss_stays_the_same():
    draw = np.random.default_rng(0)
    keys = draw.integers(-(2**63), 2**63, 300)
    weights, losses = draw.uniform(1, 9, (2, 300))
    whole, merged = by_record(keys, weights, losses), by_record(keys, weights, losses, most=64)
    assert (len(whole.keys), merged.records) == (300, 300)
    assert 50 < len(merged.keys) <= 64
    assert merged.loss == pytest.approx(whole.loss, rel=1e-15)
    assert merged.digest == whole.digest
    assert by_record(keys[1:], weights[1:], losses[1:]).digest != whole.digest


def test_what_is_written_gives_the_loss_to_the_last_digit():
    draw = np.random.default_rng(1)
    values = by_record(np.arange(100), *draw.uniform(0.1, 5, (2, 100))).as_dict(1)
    rows = values["losses"]
    sums = (math.fsum(row[name] for row in rows) for name in ("weightedLoss", "weight"))
    assert next(sums) / next(sums) == values["loss"]
