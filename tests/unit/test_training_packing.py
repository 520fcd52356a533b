"""Tree packing against padding: the same loss, the same gradient, on every path attention has."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fixtures.steps import load, write_table

from tunesmith.tokens.conversation import Sample
from tunesmith.training.loss import weighted_sum
from tunesmith.training.tree.tree import build_tree


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global attend, block_mask, compare, difference, functional, fuse_head, loss_of_logits, padded_batch
    global paths, small_samples, torch, tree_batch, use_tree_attention, why_not, BLOCK, FusedHead, Targets
    global TreeAttention, CPU, attention, compiled, kernels_compiled, padded_length
    import torch
    from torch.nn import functional

    from tunesmith.training.batches import padded_batch, tree_batch
    from tunesmith.training.fused_cross_entropy import FusedHead, Targets, fuse_head, loss_of_logits
    from tunesmith.training.tree import attention
    from tunesmith.training.tree.attention import TreeAttention, attend
    from tunesmith.training.tree.flex import BLOCK, block_mask, compiled, kernels_compiled, padded_length
    from tunesmith.training.tree_check import (
        compare,
        difference,
        paths,
        small_samples,
        use_tree_attention,
        why_not,
    )

    CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def adapted(model):
    """With LoRA on every linear layer, its second matrix not zero, so that the first has a gradient."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    made = get_peft_model(
        model,
        LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return made


@pytest.fixture(scope="module")
def models(tiny_model):
    """(method, checkpointing) -> a model that trains with trees, and its head."""
    made = {}
    for method in ("full", "lora"):
        for checkpointing in (False, True):
            base = load(tiny_model)
            use_tree_attention(base)
            if checkpointing:
                base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                base.enable_input_require_grads()
            model = base if method == "full" else adapted(base)
            made[method, checkpointing] = (model.train(), fuse_head(model))
    return made


def gradient(model, batch, head):
    model.zero_grad()
    loss = weighted_sum(model, batch, CPU, head)
    loss.backward()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return loss.item(), {n: p.grad.double().clone() for n, p in named}


def relative_error(made, wanted):
    difference = sum(((made[name] - wanted[name]) ** 2).sum() for name in wanted)
    return math.sqrt(difference / sum((wanted[name] ** 2).sum() for name in wanted))


@st.composite
def tries(draw):
    """Samples that begin as earlier ones do, with weights per token: 0, 1, 1/n."""
    samples, weights = [], []
    for _ in range(draw(st.integers(1, 7))):
        begin = []
        if samples:
            other = samples[draw(st.integers(0, len(samples) - 1))]
            begin = other[: draw(st.integers(0, len(other)))]
        sample = begin + draw(st.lists(st.integers(3, 60), min_size=2 if len(begin) < 2 else 0, max_size=30))
        share = draw(st.sampled_from([1.0, 0.5, 1 / 3]))
        samples.append(sample)
        weights.append(
            [
                share * w
                for w in draw(
                    st.lists(st.sampled_from([0, 1, 2]), min_size=len(sample), max_size=len(sample))
                )
            ]
        )
        weights[-1][-1] = share
    return [np.array(s, np.int32) for s in samples], [np.array(w, np.float32) for w in weights]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("method", ["full", "lora"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=tries())
def test_the_gradient_of_a_tree_is_that_of_its_samples(models, method, checkpointing, data):
    """The head takes part: padded samples go through plain logits."""
    model, head = models[method, checkpointing]
    samples, weights = data
    loss, wanted = gradient(model, padded_batch(samples, weights, 0), None)
    made_loss, made = gradient(model, tree_batch(build_tree(samples, weights), 0), head)
    assert made_loss == pytest.approx(loss, rel=1e-5)
    assert relative_error(made, wanted) <= 1e-5


def branching(count=5, trunk=150, size=40, seed=0):
    draw = np.random.default_rng(seed)
    begin = draw.integers(3, 500, trunk)
    return [
        np.concatenate([begin[: trunk - 10 * i], draw.integers(3, 500, size)]).astype(np.int32)
        for i in range(count)
    ]


@pytest.mark.parametrize("path", ["dense", "flex"])
def test_every_path_attends_alike(tiny_model, path):
    model = load(tiny_model).eval()
    use_tree_attention(model)
    samples = branching()
    tree = build_tree(samples, [np.ones(len(s), np.float32) for s in samples])
    inputs = {
        "input_ids": torch.from_numpy(tree.ids)[None],
        "position_ids": torch.from_numpy(tree.positions)[None],
    }
    with torch.no_grad():
        by_runs, other = (
            model(**inputs, attention_mask=t.shape(), tree=t, use_cache=False).logits
            for t in (TreeAttention(tree, CPU, "runs"), TreeAttention(tree, CPU, path))
        )
    assert (by_runs - other).abs().max() <= 1e-4 * by_runs.abs().max()


def test_a_long_run_is_one_call_and_attends_alike():
    samples = branching(3, trunk=1100)
    tree = build_tree(samples, [np.ones(len(s), np.float32) for s in samples])
    layer = torch.nn.Module()
    layer.num_key_value_groups = 2
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, len(tree), 16, generator=generator) for heads in (4, 2, 2, 4)]
    slope = states.pop().transpose(1, 2)
    by_runs = TreeAttention(tree, CPU, "runs")
    assert [piece.size for piece in by_runs.pieces] == [1140, 40, 40]
    made, wanted = [], []
    for way, found in ((by_runs, made), (TreeAttention(tree, CPU, "dense"), wanted)):
        inputs = [each.clone().requires_grad_() for each in states]
        out, _ = attend(layer, *inputs, None, tree=way)
        found.extend([out, *torch.autograd.grad(out, inputs, slope)])
    for one, other in zip(made, wanted, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_lengths_are_few_and_little_longer():
    sizes = range(1, 1 << 17, 61)
    assert all(size <= padded_length(size) <= max(BLOCK, size * 1.25) + BLOCK for size in sizes)
    assert all(padded_length(size) % BLOCK == 0 for size in sizes)
    assert len({padded_length(size) for size in sizes if size >= 2048}) <= 4 * 6 + 1


def test_trees_of_many_lengths_compile_few_kernels():
    compiled.cache_clear()
    assert kernels_compiled() == 0
    compiled()
    before = kernels_compiled()
    for size in (700, 710, 725, 768, 800):
        q, k, v = (torch.randn(1, heads, size, 16) for heads in (6, 3, 3))
        tree = build_tree([np.arange(size, dtype=np.int32)], [np.ones(size, np.float32)])
        blocks = TreeAttention(tree, CPU, "flex")
        out, _ = attend(None, q, k, v, None, tree=blocks)
        wanted = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        assert (out - wanted.transpose(1, 2)).abs().max() < 1e-4
    assert kernels_compiled() - before == 2


@pytest.mark.parametrize(("blocks", "more"), [(0, 1), (1, -1), (1, 0), (1, 1), (3, 17)])
def test_blocks_are_those_of_the_mask(blocks, more):
    size = blocks * BLOCK + more
    samples = [s for s in branching(6, max(size // 2, 61), 50) if len(s)][: max(1, size // 60)]
    tree = build_tree(samples, [np.ones(len(s), np.float32) for s in samples])
    made = block_mask(tree.ends, CPU)
    blocks = made.to_dense()[0, 0].numpy().astype(bool)
    dense = np.eye(len(blocks) * BLOCK, dtype=bool)  # the padding sees itself
    dense[: len(tree), : len(tree)] = TreeAttention(tree, CPU, "dense").mask[0, 0].numpy()
    for row in range(blocks.shape[0]):
        for column in range(blocks.shape[1]):
            part = dense[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            assert blocks[row, column] >= part.any()
            if row != column:
                assert blocks[row, column] == part.any()
    full = made.full_kv_indices, made.full_kv_num_blocks
    for row in range(blocks.shape[0]):
        for column in full[0][0, 0, row, : full[1][0, 0, row]].tolist():
            assert dense[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK].all()


def test_without_a_tree_attention_is_sdpa(tiny_model):
    plain, ours = load(tiny_model).eval(), load(tiny_model).eval()
    use_tree_attention(ours)
    ids = torch.randint(3, 500, (2, 20))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        wanted, made = (m(input_ids=ids, attention_mask=mask).logits for m in (plain, ours))
        assert torch.equal(wanted, made)
        wanted, made = (m.generate(ids[:1], max_new_tokens=5, do_sample=False) for m in (plain, ours))
        assert torch.equal(wanted, made)


def test_attention_that_is_more_than_a_mask_is_refused():
    tree = TreeAttention(build_tree([np.array([1, 2], np.int32)], [np.ones(2, np.float32)]), CPU)
    part = torch.zeros(1, 1, 2, 4)
    with pytest.raises(attention.UnsupportedAttentionError, match="softcap"):
        attend(torch.nn.Module(), part, part, part, None, tree, softcap=30.0)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_head_in_chunks_against_float64(monkeypatch, trained):
    monkeypatch.setattr("tunesmith.training.head_chunks.CPU_LOGITS", 7 * 1000)
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 1000, bias=True)
    torch.nn.init.normal_(layer.weight)
    for parameter in layer.parameters():
        parameter.requires_grad_(trained)
    exact = copy.deepcopy(layer).double()
    hidden = torch.randn(1, 40, 16, requires_grad=True)
    rows = torch.tensor([0, 0, 3, 6, 7, 8, 20, 39, 39])
    targets = Targets(rows, torch.arange(9) * 100, torch.linspace(0.2, 2, 9), rows.numpy())
    head = FusedHead(layer)
    with head.loss(targets):
        loss = layer(hidden)
    (loss * 3).sum().backward()
    double = hidden.detach().double().requires_grad_()
    logits = exact(double)[0]
    chosen = functional.cross_entropy(logits[rows], targets.ids, reduction="none")
    ((chosen * targets.weights.double()).sum() * 3).backward()
    assert loss.item() * 3 == pytest.approx((chosen * targets.weights).sum().item() * 3, rel=1e-6)
    made, wanted = {"hidden": hidden.grad.double()}, {"hidden": double.grad}
    if trained:
        made |= {name: p.grad.double() for name, p in layer.named_parameters()}
        wanted |= {name: p.grad for name, p in exact.named_parameters()}
    assert relative_error(made, wanted) <= 1e-6
    assert layer(hidden).shape == (1, 40, 1000)  # outside, the head gives logits


def test_chunks_follow_the_memory_of_the_gpu():
    from tunesmith.training.head_chunks import chunk_rows

    assert chunk_rows(100_000, 152_000, None) == 111
    for gib, rows in ((16, 441), (80, 2207), (141, 3890)):
        assert chunk_rows(100_000, 152_000, gib << 30) == rows
    assert chunk_rows(100_000, 32_000, 80 << 30) == 4096
    assert chunk_rows(10, 32_000, 80 << 30) == 10
    assert chunk_rows(10, 1 << 40, 1 << 30) == 1
    assert 4 * 152_000 * chunk_rows(100_000, 152_000, 80 << 30) < (80 << 30) / 16


def test_loss_of_logits_is_exact_over_a_large_vocabulary():
    torch.manual_seed(0)
    logits = torch.randn(6, 50_000) * 5
    logits[:, 7] += 30
    targets = Targets(torch.arange(6), torch.full((6,), 7), torch.ones(6), np.arange(6))
    wanted = functional.cross_entropy(logits.double(), targets.ids, reduction="sum").item()
    assert loss_of_logits(logits, targets).item() == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_the_self_check_sees_a_branch_without_its_prefix(tiny_model, tmp_path, monkeypatch):
    model = load(tiny_model)
    use_tree_attention(model)
    with torch.no_grad():  # attention must matter
        for name, parameter in model.named_parameters():
            if "self_attn" in name:
                parameter.mul_(8)
    table = write_table(
        tmp_path / "t", [Sample(s.tolist(), [0.0] + [1.0] * (len(s) - 1)) for s in branching(6)]
    )
    samples = small_samples(table, np.arange(6))
    assert len(samples) == 4
    assert difference(model, samples, CPU, None) <= 1e-5

    def cut_off(*args):
        """Each run on its own, as position jumps without a mask are read."""
        tree = build_tree(*args)
        return replace(tree, runs=tuple(replace(run, before=()) for run in tree.runs))

    monkeypatch.setattr("tunesmith.training.tree_check.build_tree", cut_off)
    assert difference(model, samples, CPU, None) > 1e-4


def test_the_self_check_leaves_random_numbers_and_mode_alone(tiny_model):
    model = load(tiny_model).train()
    use_tree_attention(model)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    difference(model, branching(3), CPU, fuse_head(model))
    assert torch.equal(torch.rand(3), wanted)
    assert model.training


CONFIGS = {
    "Llama": ("LlamaConfig", {}, ""),
    "Qwen3": ("Qwen3Config", {"head_dim": 8}, ""),
    "Mistral, short": ("MistralConfig", {"sliding_window": 512}, ""),
    "Mistral, long": ("MistralConfig", {"sliding_window": 256}, "attends to 256 tokens at once"),
    "Gemma 3, long": (
        "Gemma3TextConfig",
        {"sliding_window": 128, "head_dim": 8},
        "attends to 128 tokens at once",
    ),
    "Qwen3-Next": ("Qwen3NextConfig", {"head_dim": 8}, "layers of type linear_attention"),
    "Mamba": ("MambaConfig", {}, "does not accept a custom attention mask"),
}


@pytest.mark.parametrize(("config", "fields", "reason"), CONFIGS.values(), ids=CONFIGS)
def test_which_models_can(config, fields, reason):
    import transformers

    small = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    made = getattr(transformers, config)(**small | fields)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    said = why_not(model, "auto", 300)
    assert (reason in said) if reason else not said


def test_the_check_says_what_it_saw(tiny_model, monkeypatch):
    model = load(tiny_model)
    use_tree_attention(model)
    samples = branching(3)
    good = compare(model, samples, CPU, None, "auto", 1e-4)
    assert (good.used, good.reason) == (True, "")
    assert good.difference is not None
    assert compare(model, samples, CPU, None, "flex", 1e-4).used
    off = compare(model, samples, CPU, None, "auto", -1.0)
    assert not off.used
    assert "between tree packing and padding" in off.reason

    def broken(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr("tunesmith.training.tree.flex.compiled", lambda: broken)
    assert "FlexAttention: no compiler" in compare(model, samples, CPU, None, "flex", 1e-4).reason


def test_a_model_that_takes_no_tree_is_padded():
    def model(input_ids, attention_mask, position_ids, logits_to_keep, use_cache):
        raise AssertionError

    model.training, model.eval, model.train = False, lambda: None, lambda mode: None
    assert "tree" in compare(model, branching(2), CPU, None, "auto", 1e-4).reason


@pytest.mark.parametrize(
    ("device", "tokens", "wanted"),
    [("cpu", 9999, ["auto"]), ("cuda", 2047, ["auto"]), ("cuda", 2048, ["flex", "dense"])],
)
def test_paths_worth_trying(device, tokens, wanted):
    assert paths(torch.device(device), tokens) == wanted
