"""Estimates beside what torch allocates: `python -m bench.estimate.bench`, `--only qwen3,mixtral`."""

from __future__ import annotations

import logging
from argparse import ArgumentParser

from bench.estimate.cases import CASES, estimated
from bench.estimate.measure import MemoryCase, measure

MIB = 1 << 20
HEADING = (
    "| model | trained | dtype | tokens | as on | checkpointing | measured MiB | estimate MiB | off by |"
)


def settings(case: MemoryCase) -> str:
    """Return the method, and what else differs from the other cases."""
    (name, values), config = next(iter(case.method.items())), case.config
    told = [name, *(str(each) for each in case.training.values())]
    told += ["without dropout"] if values.get("dropout") == 0.0 else []
    told += ["not the experts"] if "targetParameters" in values else []
    told += [f"{case.labels:.0%} labels"] if case.labels < 1 else []
    told += [f"vocabulary {config['vocab_size']:,}"] if config["vocab_size"] > 4096 else []
    told += [f"{config['num_hidden_layers']} layers"] if config["num_hidden_layers"] > 4 else []
    return ", ".join(told)


def row(case: MemoryCase) -> str:
    """Measure a case and return its row of the table."""
    found, guess = measure(case).total, estimated(case).total
    cells = (
        case.name,
        settings(case),
        case.dtype,
        f"{case.tokens} × {case.micro_batches}",
        "GPU" if case.as_gpu else "CPU",
        "on" if case.checkpointing else "off",
        f"{found / MIB:.1f}",
        f"{guess / MIB:.1f}",
        f"{guess / found - 1:+.1%}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Names of models, with commas between them.")
    only = [name for name in parser.parse_args().only.split(",") if name]
    for name in ("transformers", "tunesmith"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(f"{HEADING}\n|{'---|' * 9}", flush=True)
    for case in CASES:
        if not only or case.name in only:
            print(row(case), flush=True)


if __name__ == "__main__":
    main()
