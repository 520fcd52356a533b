"""What a warm process has imported; see `tests.warm`. Of it, jobs leave out what most do without."""

from importlib import import_module

from tunesmith.engines.skip_imports import skip_imports

LEFT_OUT = ("bitsandbytes", "datasets", "deepspeed")
IMPORTED = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "peft",
    "tensorboard.compat.proto.event_pb2",
    "boto3",
    "tests.warm_engines",
    "tunesmith.cli",
    "tunesmith.data.cache",
    "tunesmith.engines.hf.engine",
    "tunesmith.jobs.__main__",
    "tunesmith.jobs.dialogue_gen",
    "tunesmith.jobs.engine_worker",
    "tunesmith.jobs.evaluate",
    "tunesmith.jobs.finetune",
    "tunesmith.jobs.rejection_sample",
    "tunesmith.local.run",
    "tunesmith.training.model",
    "tunesmith.training.recorder",
    "tunesmith.training.trainer",
)

skip_imports(*LEFT_OUT)
for name in IMPORTED:
    import_module(name)
