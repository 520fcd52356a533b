"""What a run will need, from numbers: cards, work, time, disk, and what would fit."""

from dataclasses import replace

import pytest
from tests.cases import each
from tests.fixtures.steps import small_spec, write_table

from tunesmith.api.generation import EngineSpec
from tunesmith.engines.cards import CARDS, find_card
from tunesmith.engines.model_shape import read_shape
from tunesmith.errors import UsageError
from tunesmith.figures import binary_size
from tunesmith.sampling.expected_time import SamplingAmount, expected_sampling
from tunesmith.tokens.conversation import Sample
from tunesmith.training.estimate.disk import disk_needs
from tunesmith.training.estimate.fit import variants
from tunesmith.training.estimate.from_spec import Batch, decided, main_memory, memory_setup
from tunesmith.training.estimate.memory import estimate_memory, standing
from tunesmith.training.estimate.speed import assumed_efficiency, step_time
from tunesmith.training.estimate.work import step_flops, training_work
from tunesmith.training.training_args import plan_steps

GIB = 1 << 30
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
}  # fmt: skip
SHAPE = read_shape(QWEN_7B)
H100 = find_card("H100")


def setup_of(method, tokens=4096, world=1, training=None, **spec):
    asked = small_spec(training or {}, method=method, **spec)
    batch = Batch(tokens, tokens, min(tokens, 2048), several=True)
    return memory_setup(asked, SHAPE, batch, dtype_bytes=2, world=world, gpu_memory=H100.memory)


# --- Cards.


@each(
    "written, name",
    [
        ("h100", "H100"),
        ("NVIDIA-H100-80GB-HBM3", "H100"),
        ("a100", "A100-80"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40"),
        ("rtx 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("l40s", "L40S"),
        ("NVIDIA-L4", "L4"),
    ],
)
def test_a_card_by_the_names_it_has(written, name):
    assert find_card(written).name == name


def test_an_unknown_card_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        find_card("H1000")
    assert caught.value.message.startswith("--gpu H1000: this GPU is not known; choose one of B200, H200, ")
    assert all(card.name in caught.value.message for card in CARDS)


def test_every_card_is_found_by_its_name():
    assert [find_card(card.name) for card in CARDS] == list(CARDS)


# --- Memory.


@each(
    "method, gigabytes",
    [
        ({"lora": {"r": 64}}, 15.2 + 16 * 0.1615),  # 2 bytes a weight, 16 a trained number
        ({"qlora": {"r": 64}}, 3.36 + 2.18 + 16 * 0.1615),
        ({"full": {}}, 16 * 7.615),
    ],
)
def test_what_is_there_whatever_the_batch(method, gigabytes):
    assert standing(setup_of(method)).total / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_eight_bits_of_the_optimizer():
    eight = setup_of({"full": {}}, training={"optimizer": "paged_adamw_8bit"})
    assert standing(eight).optimizer / SHAPE.parameters == pytest.approx(2.03, abs=0.01)


@each(
    "stage, per_weight",
    [
        (1, 2 + 2 + 12 / 8),  # weights, gradients, and shares of the optimizer's state with its weights
        (2, 2 + 2 / 8 + 12 / 8),
        (3, 16 / 8),
    ],
)
def test_what_zero_shares_out(stage, per_weight):
    parts = standing(setup_of({"full": {}}, world=8, deepspeed={"zeroStage": stage}))
    assert (parts.total - parts.communication) / SHAPE.parameters == pytest.approx(per_weight, rel=0.001)


def test_what_is_offloaded_is_in_main_memory():
    zero = {"zeroStage": 3, "offload": "all"}
    setup = setup_of({"full": {}}, world=8, deepspeed=zero)
    assert standing(setup).weights == standing(setup).optimizer == 0
    assert main_memory(setup) * 8 / SHAPE.parameters == pytest.approx(18, rel=0.001)
    assert main_memory(setup_of({"full": {}}, world=8, deepspeed={"zeroStage": 3})) == 0


def test_ddp_has_the_gradients_twice():
    alone, several = (standing(setup_of({"lora": {}}, world=world)) for world in (1, 8))
    assert several.communication == alone.gradients
    assert alone.communication == 0


def test_checkpointing_is_chosen_as_the_job_does():
    spec, setup = small_spec({}, method={"lora": {}}), setup_of({"lora": {}}, tokens=8192)
    assert decided(setup, spec, H100.memory).checkpointing
    assert not decided(setup, spec, 200 * GIB).checkpointing
    off = small_spec({"gradientCheckpointing": False}, method={"lora": {}})
    assert not decided(setup, off, H100.memory).checkpointing


def test_more_tokens_take_more_and_checkpointing_takes_less():
    sizes = [estimate_memory(setup_of({"lora": {}}, tokens)).total for tokens in (512, 1024, 4096, 8192)]
    assert sizes == sorted(sizes)
    setup = setup_of({"lora": {}}, 8192)
    assert estimate_memory(replace(setup, checkpointing=True)).total < estimate_memory(setup).total / 2


# --- What would fit.


def test_each_change_takes_less_than_what_does_not_fit():
    setup = setup_of({"full": {}}, world=8, tokens=8192)
    found = {each.settings: each for each in variants(setup, Batch(8192, 8192, 2048, True), 1, 8, 2)}
    assert list(found) == [
        "gradientCheckpointing: true",
        "tokensPerDevice: 4096",
        "tokensPerDevice: 2048",
        "optimizer: paged_adamw_8bit",
        "deepspeed: {zeroStage: 1}",
        "deepspeed: {zeroStage: 2}",
        "deepspeed: {zeroStage: 3}",
        "deepspeed: {zeroStage: 3, offload: all}",
        "method: {lora: {}}",
        "method: {qlora: {}}",
        "gpusPerNode: 4, gradientAccumulationSteps: 4",
    ]
    whole = estimate_memory(setup).total
    del found["gpusPerNode: 4, gradientAccumulationSteps: 4"]
    assert all(estimate_memory(each.setup).total < whole for each in found.values())


def test_experts_are_not_quantised():
    mixture = read_shape(
        {**QWEN_7B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    )
    setup = replace(setup_of({"lora": {"dropout": 0.0}}), shape=mixture)
    settings = [each.settings for each in variants(setup, Batch(4096, 4096, 4096, True), 1, 1, 1)]
    assert "targetParameters: []" in settings
    assert not any("qlora" in each for each in settings)


# --- Work and time.


def table_of(folder, lengths, labels=10):
    samples = [
        Sample([number + 1] * 3 + list(range(length - 3)), [0.0] * (length - labels) + [1.0] * labels)
        for number, length in enumerate(lengths)
    ]
    return write_table(folder, samples)


def work_of(training, table, world=1):
    return training_work(plan_steps(small_spec(training), table, world, 0), table)


@each("packing", ["tree", "none"])
def test_the_work_of_samples_that_share_nothing(tmp_path_factory, packing):
    table = table_of(tmp_path_factory.mktemp(packing) / "t", [100] * 32)
    training = {"perDeviceTrainBatchSize": 4, "gradientAccumulationSteps": 2, "packing": packing}
    work = work_of({**training, "maxSteps": None, "numTrainEpochs": 2}, table, 2)
    assert (work.steps, work.samples, work.sample_tokens) == (4, 32, 3200)
    step = work.step
    assert (step.tokens, step.computed, step.labels) == (1600, 1600, 160)
    assert (step.rounds, step.slowest, step.balance) == (2, 800, 0.5)
    assert step.pairs == pytest.approx(16 * 100 * 100 / 2, rel=0.02)
    assert (work.batch.tokens, work.batch.longest, work.batch.several) == (400, 100, True)
    assert work.batch.labels == 40


def test_shared_tokens_are_computed_once(tmp_path):
    samples = [Sample([*range(1, 91), *[100 + n] * 10], [0.0] * 90 + [1.0] * 10) for n in range(8)]
    work = work_of(
        {"perDeviceTrainBatchSize": 8, "gradientAccumulationSteps": 1}, write_table(tmp_path / "t", samples)
    )
    assert (work.step.tokens, work.step.computed, work.step.labels) == (800, 170, 80)
    assert work.step.pairs == sum(range(1, 91)) + 8 * sum(range(91, 101))


def test_operations_are_six_per_weight_and_token(tmp_path):
    work = work_of(
        {"perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 1}, table_of(tmp_path / "t", [100], 97)
    )
    full, lora = setup_of({"full": {}}), setup_of({"lora": {}})
    known = 6 * (SHAPE.parameters - SHAPE.embedding) * 100
    assert step_flops(full, work.step) == pytest.approx(known, rel=0.01)
    of_adapter = 6 * lora.trained * 100
    assert step_flops(lora, work.step) == pytest.approx(known * 2 / 3 + of_adapter, rel=0.01)
    again = step_flops(replace(full, checkpointing=True), work.step)
    assert again == pytest.approx(known * 4 / 3, rel=0.03)


def test_time_is_what_is_computed_at_a_share_of_the_peak(tmp_path):
    work = work_of(
        {"perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}, table_of(tmp_path / "t", [4000] * 16)
    ).step
    setup = setup_of({"lora": {}})
    flops = step_flops(setup, work)
    assert step_time(setup, work, H100).efficiency == assumed_efficiency(setup) == 0.35
    found = step_time(setup, work, H100, efficiency=0.5).seconds
    assert found == pytest.approx(flops / (989e12 * 0.5), rel=0.01)


def test_small_batches_wait_for_the_weights(tmp_path):
    work = work_of(
        {"perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 1}, table_of(tmp_path / "t", [13] * 4)
    ).step
    found = step_time(setup_of({"lora": {}}), work, H100).seconds
    assert found > 2 * 2 * SHAPE.parameters / H100.bandwidth


# --- Disk.


def test_room_for_two_checkpoints():
    needs = disk_needs(setup_of({"full": {}}), model=15e9, fetched=True, tokens=10**6, kept=3, nodes=1)
    assert needs.checkpoint == pytest.approx(12 * SHAPE.parameters)
    assert needs.scratch == pytest.approx(15e9 + 26 * SHAPE.parameters + 8e6)
    assert needs.stored == pytest.approx(38 * SHAPE.parameters)
    local = disk_needs(setup_of({"full": {}}), model=15e9, fetched=False, tokens=10**6, kept=3, nodes=1)
    assert needs.scratch - local.scratch == 15e9


# --- Sampling.

AMOUNT = SamplingAmount(1000, 8000, 500_000, 8000 * 2048)


def sampled(card, gpus=1, **vllm):
    return expected_sampling(SHAPE, AMOUNT, EngineSpec.model_validate({"vllm": vllm}), find_card(card), gpus)


def test_replies_at_once_are_those_that_have_room():
    found = sampled("A100-40")
    per_reply = found.token * (500 + 1024 * 2)  # the longest have the least room
    assert found.at_once == int(found.room // per_reply)
    assert found.token == 2 * 28 * 2 * 512
    assert 0 < found.seconds < found.most_seconds


def test_more_gpus_are_faster_and_share_what_does_not_fit():
    assert sampled("H100", 8).seconds == pytest.approx(sampled("H100").seconds / 8, rel=0.01)
    assert sampled("T4").at_once == 0
    assert sampled("T4", 4, tensorParallelSize=4).at_once > 0


# --- What a pod reports.


def test_a_pod_says_memory_steps_and_time(tmp_path):
    from tunesmith.jobs.estimate import in_words

    work = work_of(
        {"perDeviceTrainBatchSize": 16, "gradientAccumulationSteps": 1}, table_of(tmp_path / "t", [4000] * 16)
    )
    setup = setup_of({"lora": {}})
    told = in_words(setup, work, H100.memory, H100, gpu=True)
    needed = binary_size(estimate_memory(setup).total)
    assert told.startswith(f"{needed} of 79.6 GiB of a GPU, 6 steps, about ")
    assert told.endswith(" on H100")
    on_cpu = in_words(setup, work, 8 * GIB, None, gpu=False)
    assert on_cpu == f"{needed} of 8.0 GiB of main memory per process, 6 steps"
