"""A model's generation config: fixed if transformers would load it but not save it.

`GenerationConfig.save_pretrained` is stricter than loading: sampling parameters without `do_sample` (Vicuna,
the first Llama-2), or beam parameters without beams, would end a run at its first save.
"""

from __future__ import annotations

from typing import Any

# Sampling parameters, each with the value that has no effect.
_OF_SAMPLING = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None, "top_h": None, "typical_p": 1.0,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
# Others depend on these.
_FIRST = ("do_sample", "num_beams", "return_dict_in_generate", "use_cache")


def mend_generation_config(model: Any) -> list[str]:
    """Fix what saving the model would reject. Returns a phrase per change; none if the config is valid.

    Sampling parameters imply sampling, as in later versions of such files, unless `do_sample` is false or
    the temperature is 0. Whatever else transformers would not save is left out.
    """
    config = getattr(model, "generation_config", None)
    if config is None or not refused(config):
        return []
    given = [name for name, value in _OF_SAMPLING.items() if getattr(config, name, None) not in (None, value)]
    done = []
    if given and config.do_sample is None and config.temperature != 0:
        config.do_sample = True
        done.append(f"do_sample is set to true, since {', '.join(given)} {_is(given)} set")
    model.generation_config, left_out = _valid_part(config)
    if left_out:
        done.append(f"{', '.join(left_out)} {_is(left_out)} left out")
    return done


def refused(config: Any) -> str:
    """Return why transformers would not save a GenerationConfig; "" if it would."""
    try:
        config.validate(strict=True)
    except (ValueError, TypeError) as error:
        return str(error) or type(error).__name__
    return ""


def _valid_part(config: Any) -> tuple[Any, list[str]]:
    """Return the part of a config that can be saved, and the names of the fields that cannot."""
    values = config.to_diff_dict()
    kept, left_out = type(config)(), []
    for name in sorted(values, key=lambda name: name not in _FIRST):
        before = getattr(kept, name, None)
        setattr(kept, name, values[name])
        if refused(kept):
            setattr(kept, name, before)
            left_out.append(name)
    return kept, left_out


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
