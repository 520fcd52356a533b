"""The loss against its formula: by hand, against padding, and as one gradient however a step is divided."""

import math
import random

import numpy as np
import pytest
from tests.fixtures import steps
from tests.fixtures.steps import load, step_gradient, write_table
from tests.warm import together

from tunesmith.local.launch import HOST, free_port
from tunesmith.tokens.conversation import Sample
from tunesmith.training.loss import weighted_sum
from tunesmith.training.weighting import denominator, token_weights


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global collate, torch, CPU
    import torch

    from tunesmith.training.batches import collate

    CPU = torch.device("cpu")


REDUCTIONS = ["tokenMean", "sampleMean"]


@pytest.fixture(scope="module", autouse=True)
def one_thread(libraries):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_samples(count, seed=0):
    """Unequal lengths and weights: 1/n, whole samples at 0.5, gaps between labels; some share beginnings."""
    draw = random.Random(seed)
    samples = []
    for _ in range(count):
        begin = samples[-1].ids[: draw.randint(0, 30)] if samples and draw.random() < 0.6 else []
        length = len(begin) + draw.randint(3, 40)
        ids = begin + [draw.randrange(3, 500) for _ in range(length - len(begin))]
        weight = draw.choice([1.0, 1.0, 0.5, 1 / 3, 1 / 7])
        weights = [0.0] + [weight * draw.choice([0, 0, 1, 1, 2]) for _ in range(length - 1)]
        weights[-1] = weights[-1] or weight
        samples.append(Sample(ids, weights))
    return samples


def naive(model, samples, reduction):
    """Loss and gradient straight from the formula, one sample at a time, in float64 sums."""
    import torch

    parts, total = [], 0.0
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0]
        labels = [t for t in range(1, len(sample.ids)) if sample.weights[t] > 0]
        losses = [-torch.log_softmax(logits[t - 1], -1)[sample.ids[t]] for t in labels]
        share = len(labels) if reduction == "sampleMean" else 1
        parts.append(sum(loss * sample.weights[t] / share for loss, t in zip(losses, labels, strict=True)))
        total += sum(sample.weights[t] / share for t in labels)
    loss = sum(parts) / total
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def relative_error(made, wanted):
    assert made.keys() == wanted.keys()
    difference = sum(((made[name] - wanted[name]).double() ** 2).sum() for name in wanted)
    size = sum((wanted[name].double() ** 2).sum() for name in wanted)
    return math.sqrt(difference / size)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("tokenMean", (0.5 * 1 + 0.5 * 2 + 1 * 4) / (0.5 + 0.5 + 1)), ("sampleMean", (0.5 * 1.5 + 1 * 4) / 1.5)],
)
def test_definition_by_hand(tmp_path, reduction, expected):
    # Two samples: w = 1/2 with losses 1 and 2, w = 1 with loss 4.
    table = write_table(tmp_path / "t", [Sample([5, 6, 7], [0, 0.5, 0.5]), Sample([5, 8], [0, 1.0])])
    losses = {6: 1.0, 7: 2.0, 8: 4.0}

    class Fixed:
        """Gives each wanted token the negative log likelihood above."""

        def __call__(self, *, input_ids, attention_mask, logits_to_keep, use_cache):
            logits = torch.full((*input_ids.shape, 10), -math.inf)
            for row in range(input_ids.shape[0]):
                for at in range(input_ids.shape[1] - 1):
                    chance = math.exp(-losses.get(int(input_ids[row, at + 1]), 1.0))
                    logits[row, at, int(input_ids[row, at + 1])] = math.log(chance)
                    logits[row, at, 0 if input_ids[row, at + 1] else 1] = math.log(1 - chance)
            return type("Out", (), {"logits": logits[:, logits_to_keep]})

    both = np.array([0, 1])
    summed = weighted_sum(Fixed(), collate(table, both, reduction, 0), CPU).item()
    assert summed / denominator(table, both, reduction) == pytest.approx(expected, rel=1e-6)


def test_sample_mean_counts_labels_only():
    weights = np.array([0, 0, 0.5, 0.5, 0, 0.5], dtype=np.float32)
    assert token_weights(weights, "sampleMean").tolist() == pytest.approx([0, 0, 1 / 6, 1 / 6, 0, 1 / 6])
    assert token_weights(weights, "tokenMean").tolist() == weights.tolist()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_does_not_depend_on_what_else_is_in_the_batch(tmp_path, tiny_model, reduction):
    samples = random_samples(6)
    table, model = write_table(tmp_path / "t", samples), load(tiny_model).eval()
    with torch.no_grad():
        together = weighted_sum(model, collate(table, np.arange(6), reduction, 0), CPU).item()
        other_pad = weighted_sum(model, collate(table, np.arange(6), reduction, 7), CPU).item()
        alone = sum(
            weighted_sum(model, collate(table, np.array([i]), reduction, 0), CPU).item() for i in range(6)
        )
        wanted, _ = naive_sum(model, samples, reduction)
    assert together == pytest.approx(wanted, rel=1e-5)
    assert alone == pytest.approx(wanted, rel=1e-5)
    assert other_pad == pytest.approx(wanted, rel=1e-5)


def naive_sum(model, samples, reduction):
    total = weight = 0.0
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0]
        labels = [t for t in range(1, len(sample.ids)) if sample.weights[t] > 0]
        share = len(labels) if reduction == "sampleMean" else 1
        for t in labels:
            total += float(-torch.log_softmax(logits[t - 1], -1)[sample.ids[t]]) * sample.weights[t] / share
            weight += sample.weights[t] / share
    return total, weight


def test_no_samples_are_a_differentiable_zero(tmp_path, tiny_model):
    table, model = write_table(tmp_path / "t", random_samples(2)), load(tiny_model)
    batch = collate(table, np.zeros(0, dtype=np.int64), "tokenMean", 0)
    assert batch.tokens == 0
    loss = weighted_sum(model, batch, CPU)
    assert loss.item() == 0.0
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in grads)


def test_real_tokens_are_counted_without_padding(tmp_path):
    table = write_table(tmp_path / "t", [Sample([1] * 9, [0] + [1.0] * 8), Sample([1] * 3, [0, 1.0, 1.0])])
    assert collate(table, np.array([0, 1]), "tokenMean", 0).tokens == 12


@pytest.fixture(scope="module")
def step(tmp_path_factory, tiny_model):
    """Eight samples of one step, and by reduction the loss and gradient of the formula."""
    folder = tmp_path_factory.mktemp("step") / "table"
    samples = random_samples(8, seed=3)
    write_table(folder, samples)
    return folder, {name: naive(load(tiny_model), samples, name) for name in REDUCTIONS}


@pytest.mark.parametrize("packing", ["none", "tree"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("micro", "accumulation"), [(8, 1), (2, 4), (1, 8), (3, 3)])
def test_gradient_does_not_depend_on_the_division(
    tmp_path, tiny_model, step, reduction, micro, accumulation, packing
):
    table, wanted = step
    loss, gradient = wanted[reduction]
    made, made_loss = step_gradient(tiny_model, table, tmp_path, micro, accumulation, reduction, packing)
    assert made_loss == pytest.approx(loss, rel=1e-6)
    assert relative_error(made, gradient) <= 1e-5


def one_rank(words):
    steps.main(*words)
    return 0


@pytest.mark.slow
def test_gradient_on_two_ranks(tmp_path, tiny_model, step):
    table, wanted = step
    # With 3 samples a micro-batch one rank's second micro-batch is empty.
    arguments = [tiny_model, table, tmp_path, "2,3,2-tree", "2", "tokenMean"]
    world = {
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": HOST, "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    ranks = [{**world, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    together(one_rank, arguments, ranks, tmp_path)
    loss, gradient = wanted["tokenMean"]
    for micro in ("2", "3", "2-tree"):
        made, made_loss = torch.load(tmp_path / micro / "gradient.pt", weights_only=True)
        assert made_loss == pytest.approx(loss, rel=1e-6), micro
        assert relative_error(made, gradient) <= 1e-5, micro
