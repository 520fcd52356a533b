"""What a FineTuneJob would learn from: the preparation that training does, shown instead of trained on."""

from __future__ import annotations

from itertools import count

from rich.console import Console
from rich.text import Text

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.cache import prepare_once
from tunesmith.data.prepared import FirstSample, Prepared
from tunesmith.data.report import DatasetReport
from tunesmith.engines.load import vocabulary_size
from tunesmith.engines.positions import max_positions
from tunesmith.export.refuse import refuse_family
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.local.preview.console import BINS, histogram, messages, say, takes
from tunesmith.report.data import render_data_report
from tunesmith.report.samples import facts, grouped, sample_values
from tunesmith.text import visible
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.show import as_plain, as_text


def preview_training(asked: PreviewRequest, spec: FineTuneSpec) -> None:
    """Show the first samples of each dataset and kind, counts and lengths. Raises TunesmithError."""
    files, tokenizer = asked.tokenizer(spec.model)
    if spec.export is not None and spec.export.gguf is not None:
        refuse_family(files)
    with asked.counting("reading the data") as status:
        _, prepared = prepare_once(
            asked.cache,
            spec,
            tokenizer,
            asked.options,
            lambda name, records: status.records(records, name),
            first=asked.first,
            vocab_size=vocabulary_size(files.base),
            positions=max_positions(files.base),
        )
    show(prepared, tokenizer, asked.console)
    needs = asked.needs(spec, files, tokenizer, prepared)
    takes(asked.console, needs)
    asked.write_page(
        render_data_report(
            {
                "title": f"{asked.job.name}: what it trains on",
                "takes": needs,
                "datasets": prepared.report(),
                "lengths": prepared.lengths(),
                "label_lengths": prepared.label_lengths(),
                "samples": sample_values(prepared, tokenizer),
            }
        )
    )


def show(prepared: Prepared, tokenizer: ChatTokenizer, console: Console) -> None:
    """Print the first samples of each dataset and kind, datasets, bad records and lengths."""
    numbers = count(1)
    for title, samples in grouped(prepared):
        say(console, title, "bold")
        console.print()
        for first in samples:
            show_sample(next(numbers), first, tokenizer, console)
    for report in prepared.reports:
        show_report(report, console)
    histogram(console, "Samples by number of tokens", prepared.lengths(BINS))


def show_sample(number: int, first: FirstSample, tokenizer: ChatTokenizer, console: Console) -> None:
    """Print the messages as read, and the text the model sees with the labels marked."""
    say(console, f"Sample {number}: {first.place}, {facts(first)}", "bold")
    messages(console, [(message.role, message.content) for message in first.messages])
    coloured = console.color_system is not None
    say(console, f"  What the model sees, labels {'in green' if coloured else 'between « and »'}:", "dim")
    if coloured:
        console.print(as_text(first.sample, tokenizer), soft_wrap=True)
    else:
        console.print(Text(visible(as_plain(first.sample, tokenizer))), soft_wrap=True)
    console.print()


def show_report(report: DatasetReport, console: Console) -> None:
    """Print the counts of one dataset in a sentence, without zeros."""
    say(console, report.name, "bold")
    for sentence in report.sentences():
        say(console, f"  {sentence}")
    if report.bad:
        say(console, f"  {report.bad:,} bad, which maxBadRecords allows:", "red")
    for bad in report.bad_records:
        say(console, f"    {bad}", "red")
    if report.bad > len(report.bad_records):
        say(console, f"    … and {report.bad - len(report.bad_records):,} more", "red")
