"""FineTuneJob: tune a model on one or more datasets."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import inside, inside_cel
from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.common import JobSpec, ModelSource
from tunesmith.api.datasets import DatasetSpec, PromptsSpec, ValidationSpec
from tunesmith.api.evaluate_only import COMPARE_RULES, evaluate_only_rules
from tunesmith.api.export import EXPORT_RULES, ExportSpec
from tunesmith.api.generation import VERIFIER_RULE, EngineSpec, EvaluationSampling, PreviewSpec, VerifierSpec
from tunesmith.api.output_apart import output_apart
from tunesmith.api.scalars import (
    BoolOrAuto,
    IntOrAuto,
    JsonObject,
    Names,
    NotNegative,
    Positive,
    RandomSeed,
    ShortText,
)


class FullMethod(Model):
    """Every weight is trained."""


class LoraMethod(Model):
    """Low-rank adapters."""

    r: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout before the adapter."""
    use_rslora: bool = False
    """Multiply the adapter's output by alpha / sqrt(r) instead."""
    init_lora_weights: Literal["default", "gaussian", "orthogonal"] = "default"
    """Initial weights of the adapter."""
    target_modules: Names = "all-linear"
    """all-linear, or names of modules: a list, or a text with commas between them."""
    target_parameters: Names | None = None
    """Names of parameters, as experts that are one tensor; absent: all experts with all-linear; []: none."""

    def problems(self) -> list[tuple[str, str]]:
        """Return what the API server cannot check, since lists of names may be texts."""
        if not self.target_modules:
            return [("targetModules", "must name a module, or be all-linear")]
        if self.target_parameters and self.dropout:
            return [("dropout", "must be 0 with targetParameters: adapters of parameters take no dropout")]
        return []


class QloraMethod(LoraMethod):
    """Low-rank adapters over 4-bit weights."""

    quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit type."""
    double_quant: bool = True
    """Quantise the quantisation constants too."""


class NoMethod(Model):
    """Nothing is trained; the model is only evaluated and previewed."""


class MethodSpec(Model):
    """What is trained."""

    full: FullMethod | None = None
    """Every weight."""
    lora: LoraMethod | None = None
    """Low-rank adapters."""
    qlora: QloraMethod | None = None
    """Low-rank adapters over 4-bit weights."""
    none: NoMethod | None = None
    """Nothing: evaluate and preview the model unchanged."""

    rules: ClassVar[tuple[Rule, ...]] = (one_of("full", "lora", "qlora", "none"),)


class EarlyStopping(Model):
    """Stop when the validation loss no longer falls."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Evaluations without improvement before training stops."""
    threshold: Annotated[float, Field(ge=0)] = 0.0
    """Minimum decrease of the loss that counts as an improvement."""


class TrainingSpec(Model):
    """Hyperparameters, by their Hugging Face names."""

    num_train_epochs: Annotated[float, Field(gt=0, le=10000)] = 3.0
    """Epochs."""
    max_steps: Positive | None = None
    """Maximum optimizer steps, instead of numTrainEpochs."""
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] = 2
    """Samples per device and micro-batch."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 8
    """Micro-batches per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-4
    """Peak learning rate."""
    lr_scheduler: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "cosine"
    """Learning rate schedule."""
    warmup_steps: NotNegative = 100
    """Steps until the peak learning rate; at most a tenth of the run."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Weight decay."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Norm to which gradients are clipped; 0: no clipping."""
    optimizer: Literal[
        "auto", "adamw_torch", "adamw_torch_fused", "paged_adamw_8bit", "paged_adamw_32bit"
    ] = "auto"
    """auto: paged AdamW for QLoRA on a GPU, else fused AdamW."""
    max_length: Annotated[int, Field(ge=8, le=4194304)] | None = None
    """Maximum tokens of a sample; if absent, the model's maximum positions, at most 4096."""
    packing: Literal["tree", "none"] = "tree"
    """tree: shared prefixes are computed once; same loss, same gradients."""
    shuffle: Literal["group", "sample"] = "group"
    """Unit of shuffling: samples that share a case or dialogue, or single samples."""
    tokens_per_device: IntOrAuto = "auto"
    """Tokens per device and micro-batch; auto: chosen by memory."""
    loss_reduction: Literal["tokenMean", "sampleMean"] = "tokenMean"
    """Whether each token or each sample has equal weight."""
    truncate_prompt: bool = True
    """Truncate the beginning of a prompt that is longer than maxLength, instead of calling the record bad.
    User simulation drops a dialogue's oldest turns and history either way."""
    truncate_reply: bool = False
    """Truncate a reply that alone is longer than maxLength, instead of counting the record as bad."""
    gradient_checkpointing: BoolOrAuto = "auto"
    """Recompute activations in the backward pass to save memory."""
    seed: RandomSeed = 42
    """Seed of the order, the initial adapter and dropout."""
    logging_steps: Positive = 10
    """Steps between lines of metrics."""
    save_steps: Positive = 100
    """Steps between checkpoints."""
    save_total_limit: Annotated[int, Field(ge=1, le=1000)] = 3
    """Checkpoints kept."""
    eval_steps: Positive | None = None
    """Steps between validations; if absent, once per epoch."""
    early_stopping: EarlyStopping | None = None
    """Stop when the validation loss no longer falls."""


class DeepSpeedSpec(Model):
    """DeepSpeed: a ZeRO stage, or a whole configuration."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    """What is partitioned: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is offloaded to main memory."""
    config: JsonObject | None = None
    """A complete DeepSpeed configuration, instead."""

    rules: ClassVar[tuple[Rule, ...]] = (
        one_of("zero_stage", "config"),
        Rule(
            "cannot be set together with config",
            "!has(self.config) || self.offload == 'none'",
            lambda m: m.config is None or m.offload == "none",
            "offload",
        ),
        Rule(
            "all requires zeroStage 3, optimizer requires zeroStage 1 or more",
            "!has(self.zeroStage) || self.offload == 'none' || self.zeroStage == 3 || "
            "(self.offload == 'optimizer' && self.zeroStage >= 1)",
            lambda m: (
                m.zero_stage is None or m.zero_stage >= {"none": 0, "optimizer": 1, "all": 3}[m.offload]
            ),
            "offload",
        ),
    )


class EvaluationSpec(Model):
    """Prompts that the base model, the tuned one and those of compareWith answer after training."""

    name: ShortText
    """Name of the evaluation."""
    prompts: PromptsSpec
    """Prompts to answer."""
    verifier: VerifierSpec | None = None
    """Which replies are accepted; the task's own verifier if absent."""
    sampling: EvaluationSampling = Field(default_factory=EvaluationSampling)
    """How replies are sampled."""
    engine: EngineSpec | None = None
    """What generates; if absent, vLLM if it is installed, else transformers."""

    rules: ClassVar[tuple[Rule, ...]] = (VERIFIER_RULE,)


def _names_unique(field: str, camel: str) -> Rule:
    return Rule(
        "must have different names",
        f"self.{camel}.all(a, self.{camel}.exists_one(b, a.name == b.name))",
        lambda m: len({item.name for item in getattr(m, field)}) == len(getattr(m, field)),
        camel,
    )


def _datasets_apart(m: Any) -> bool:
    prompts = (evaluation.prompts.uri for evaluation in m.evaluation)
    articles = (
        uri
        for dataset in m.datasets
        if dataset.sampled
        for uri in (dataset.sampled.articles_uri, dataset.sampled.changed_articles_uri)
    )
    return not any(inside(uri, m.output.uri) for uri in (*prompts, *articles, *(d.uri for d in m.datasets)))


def _parallel_divides(m: Any) -> bool:
    sizes = [e.engine.vllm.tensor_parallel_size for e in m.evaluation if e.engine and e.engine.vllm]
    return m.resources.gpus_per_node == 0 or all(m.resources.gpus_per_node % size == 0 for size in sizes)


EVALUATE_ONLY_RULES = evaluate_only_rules({"training": TrainingSpec, "validation": ValidationSpec})


class FineTuneSpec(JobSpec):
    """Tune a model on one or more datasets."""

    model: ModelSource
    """The model to start from."""
    compare_with: Annotated[list[ModelSource], Field(min_length=1, max_length=8)] | None = None
    """Additional models that answer the evaluations, and with method none the previews."""
    datasets: Annotated[list[DatasetSpec], Field(max_length=64)] = Field(default=[])
    """What the model is trained on; required unless method is none."""
    validation: ValidationSpec = Field(default_factory=ValidationSpec)
    """What the model is validated on while it trains."""
    method: MethodSpec
    """What is trained."""
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    """Hyperparameters."""
    deepspeed: DeepSpeedSpec | None = None
    """DeepSpeed."""
    evaluation: Annotated[list[EvaluationSpec], Field(max_length=16)] = Field(default=[])
    """Prompts that the base model, the tuned one and those of compareWith answer after training."""
    previews: Annotated[list[PreviewSpec], Field(max_length=32)] = Field(default=[])
    """Prompts answered before and after training."""
    export: ExportSpec | None = None
    """Forms in which the tuned model is published besides final_model; each is proved first."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EVALUATE_ONLY_RULES,
        *COMPARE_RULES,
        *EXPORT_RULES,
        Rule(
            "needs a validation set; set validation.ratio or validation.uri",
            "!has(self.training.earlyStopping) || has(self.validation.uri) || self.validation.ratio > 0.0",
            lambda m: m.training.early_stopping is None or m.validation.active,
            "training.earlyStopping",
        ),
        Rule(
            "needs a validation set; set validation.ratio or validation.uri",
            "!has(self.training.evalSteps) || has(self.validation.uri) || self.validation.ratio > 0.0",
            lambda m: m.training.eval_steps is None or m.validation.active,
            "training.evalSteps",
        ),
        output_apart(
            "must not contain the model or the validation set, which it would overwrite",
            "model.uri",
            "model.adapter_uri",
            "validation.uri",
            "validation.sampled.articles_uri",
            "validation.sampled.changed_articles_uri",
        ),
        Rule(
            "must not contain a dataset or the prompts of an evaluation, which it would overwrite",
            f"!self.datasets.exists(d, has(d.uri) && {inside_cel('d.uri')})"
            " && !self.datasets.exists(d, has(d.sampled) && has(d.sampled.articlesUri)"
            f" && {inside_cel('d.sampled.articlesUri')})"
            " && !self.datasets.exists(d, has(d.sampled) && has(d.sampled.changedArticlesUri)"
            f" && {inside_cel('d.sampled.changedArticlesUri')})"
            f" && !self.evaluation.exists(e, has(e.prompts.uri) && {inside_cel('e.prompts.uri')})",
            _datasets_apart,
            "output.uri",
        ),
        Rule(
            "each engine.vllm.tensorParallelSize must divide resources.gpusPerNode",
            "self.resources.gpusPerNode == 0 || self.evaluation.all(e, !has(e.engine) || !has(e.engine.vllm)"
            " || !has(e.engine.vllm.tensorParallelSize)"
            " || self.resources.gpusPerNode % e.engine.vllm.tensorParallelSize == 0)",
            _parallel_divides,
            "evaluation",
        ),
        _names_unique("evaluation", "evaluation"),
        _names_unique("previews", "previews"),
    )
