"""The report of a FineTuneJob: plain values in, one self-contained HTML page out.

Does not depend on where the values come from (metrics.jsonl, previews, the data's counts) and where the page
goes. The page loads nothing external, needs no script, and escapes all text passed to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.formats.fields import unread_text
from tunesmith.figures import decimal_size
from tunesmith.report import svg
from tunesmith.report.evaluation import evaluation_values
from tunesmith.report.values import Values

DATASET_COLUMNS = (
    ("records", "Records"),
    ("samples", "Samples"),
    ("tokens", "Tokens"),
    ("label_tokens", "Label tokens"),
    ("seen", "Share of tokens"),
    ("validation_samples", "Held out"),
    ("bad", "Bad"),
    ("left_out", "Left out"),
    ("duplicates", "Equal"),
    ("cut", "Cut"),
)
# Control characters, and the invisible ones that can reorder displayed text.
UNSHOWN = [*range(0x00, 0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)]
REORDERING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
VISIBLE = {code: f"⟨U+{code:04X}⟩" for code in [*UNSHOWN, *REORDERING]}


def render_finetune_report(data: Mapping[str, Any]) -> str:
    """Return the HTML of one report. The keys of `data`, each of which may be absent or empty:

    evaluations [as `evaluation.evaluation_values` takes them],
    title, notes [str], summary [(label, value)], config dict, versions {name: version},
    metrics [{step, loss, learning_rate, grad_norm, tokens_per_second, epoch}], evals [{step, eval_loss}],
    trains (False for a job that only evaluates), samples [as returned by `samples.sample_values`],
    previews [{name, messages, before, after}], or for a job that only evaluates
    [{name, messages, replies: [{model, text}]}],
    exports [{name, key, bytes, tool, tokens, equalTokens, trainingType {equalTokens, tokens}, evaluations
    [{name, accuracy, tuned, low, high, within}], served {tool, equalTokens, tokens}, sameTemplate}],
    hub {repoId, commit},
    datasets [as in `data.report.DatasetReport`],
    lengths [{low, high, count}] (token counts from low to high, both included).
    """
    metrics = data.get("metrics") or []
    values = {
        "title": data.get("title") or "Fine-tuning report",
        "loss_chart": loss_chart(metrics, data.get("evals") or []),
        "small_charts": small_charts(metrics),
        "length_chart": length_chart(data.get("lengths") or []),
        "dataset_columns": DATASET_COLUMNS,
        "trains": data.get("trains", True),
        "config": as_yaml(data.get("config") or {}),
        "datasets": [dataset_row(row) for row in data.get("datasets") or []],
        "evaluations": evaluation_values(data["evaluations"]) if data.get("evaluations") else None,
        "exports": [export_row(each) for each in data.get("exports") or []],
        "hub": data.get("hub"),
        **{name: data.get(name) or [] for name in ("summary", "notes", "samples", "previews")},
        "versions": data.get("versions") or {},
    }
    page = environment().get_template("finetune.html.j2").render(sections=sections(values), **values)
    return without_control_characters(page)


def environment() -> Any:
    """Return the Jinja environment of the package's templates: all text escaped, unknown names are errors."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tunesmith", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    made.filters["value"] = shown
    return made


def dataset_row(row: Values) -> dict[str, Any]:
    """Return a dataset's numbers with the further values of its table."""
    seen, skipped = row.get("seen_samples"), row.get("skipped") or {}
    share = f"{row['share']:.1%}" if seen else None
    unread = unread_text(row.get("unread") or {})
    return {**row, "seen": share, "left_out": sum(skipped.values()), "unread": unread}


def export_row(form: Values) -> dict[str, Any]:
    """Return what the table of exports shows of one form, as texts."""
    exact = form.get("trainingType") or {}
    same = f"{exact['equalTokens']:.1%} of {exact['tokens']:,}" if exact else None
    share = f"{form['equalTokens']:.1%} of {form['tokens']:,}" if form.get("tokens") else None
    scores = [
        f"{row['name']}: {row['accuracy']:.1%} "
        f"(tuned {row['tuned']:.1%}, {row['low']:.1%} to {row['high']:.1%})"
        for row in form.get("evaluations") or []
    ]
    size = decimal_size(form["bytes"])
    tool = form.get("tool")
    if served := form.get("served"):
        tool = f"{tool}; {served['tool']}: {served['equalTokens']:.1%} of {served['tokens']:,}"
    if form.get("sameTemplate") is False:
        tool = f"{tool}; its chat template renders prompts otherwise than training did"
    return {**form, "size": size, "exact": same, "share": share, "scores": scores, "tool": tool}


def sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (id, text) of the sections that the page has, for its line of links."""
    known = [
        ("training", "Training", values["trains"]),
        ("evaluations", "Evaluations", values["evaluations"]),
        ("previews", "Before and after" if values["trains"] else "Previews", values["previews"]),
        ("exports", "Exports", values["exports"] or values["hub"]),
        ("samples", "Samples", values["samples"]),
        ("data", "Data", values["datasets"] or values["length_chart"]),
        ("configuration", "Configuration", values["config"]),
        ("versions", "Versions", values["versions"]),
    ]
    return [(name, text) for name, text, present in known if present]


def loss_chart(metrics: Sequence[Values], evals: Sequence[Values]) -> dict[str, Any] | None:
    """Return a chart of raw training loss (faint), smoothed loss and validation loss; None without values."""
    series = [*with_smooth_line("training loss", metrics, "loss")]
    series.append(svg.Series("validation loss", "marks", points_of(evals, "eval_loss")))
    drawn = svg.line_chart(series, x_label="step", y_label="loss", title="Loss by step", css="chart wide")
    note = left_out(metrics, "loss") + left_out(evals, "eval_loss", "validation loss")
    return chart("Loss", drawn, series, note)


def small_charts(metrics: Sequence[Values]) -> list[dict[str, Any]]:
    """Return charts of learning rate, gradient norm and speed; those that were not logged are left out."""
    rate = [svg.Series("learning rate", "line", points_of(metrics, "learning_rate"))]
    norm = with_smooth_line("gradient norm", metrics, "grad_norm")
    speed = with_smooth_line("tokens per second", metrics, "tokens_per_second")
    charts = []
    for title, key, series in (
        ("Learning rate", "learning_rate", rate),
        ("Gradient norm", "grad_norm", norm),
        ("Tokens per second", "tokens_per_second", speed),
    ):
        drawn = svg.line_chart(
            series, x_label="step", y_label="", title=f"{title} by step", width=340, height=210
        )
        made = chart(title, drawn, [], left_out(metrics, key))
        charts += [made] if made else []
    return charts


def length_chart(lengths: Sequence[Values]) -> dict[str, Any] | None:
    """Return a chart of samples by their number of tokens; None without values."""
    bars = [(row["low"], row["high"] + 1, row["count"]) for row in lengths]
    title = "Samples by length in tokens"
    drawn = svg.bar_chart(bars, x_label="tokens", y_label="samples", title=title, css="chart wide")
    return chart(title, drawn, [], "")


def chart(title: str, drawn: str, series: Sequence[svg.Series], note: str) -> dict[str, Any] | None:
    """Return the values that the template's `figure` shows; None if there is neither a drawing nor a note."""
    from markupsafe import Markup

    if not drawn and not note:
        return None
    legend = [(one.classes, one.name) for one in series if one.name and svg.finite(one.points)]
    return {"title": title, "svg": Markup(drawn), "legend": legend, "note": note}


def with_smooth_line(name: str, rows: Sequence[Values], key: str) -> list[svg.Series]:
    """Return the raw points, and for ten or more a centred mean over about a twentieth of the run."""
    points = points_of(rows, key)
    real = svg.finite(points)
    if len(real) < 10:
        return [svg.Series(name, "dots", points), svg.Series("", "line", real)]
    window = max(3, len(real) // 20) | 1
    return [
        svg.Series(name, "dots", points),
        svg.Series(f"mean of {window} steps", "line", svg.smoothed(real, window)),
    ]


def points_of(rows: Sequence[Values], key: str) -> list[svg.Point]:
    """Return (step, value) of the rows that have the key; non-finite values are kept."""
    return [(row["step"], float(row[key])) for row in rows if row.get(key) is not None]


def left_out(rows: Sequence[Values], key: str, name: str = "") -> str:
    """Return a sentence about values that cannot be plotted, or ""."""
    points = points_of(rows, key)
    steps = [step for step, value in points if not math.isfinite(value)]
    if not steps:
        return ""
    what = f"{name} values" if name else "values"
    return f"Not finite, not plotted: {len(steps)} of {len(points)} {what}, the first at step {steps[0]:g}. "


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return YAML in the given order; through JSON first, so that enums and paths become plain strings."""
    import yaml

    if not config:
        return ""
    plain = json.loads(json.dumps(config, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)).rstrip()


def shown(value: object) -> str:
    """Return the text of any value: numbers with thousands separators or four digits, a dash for no value."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def without_control_characters(page: str) -> str:
    """Replace characters that HTML forbids or that reorder text by their codes, lone surrogates by "?"."""
    return page.translate(VISIBLE).encode("utf-8", "replace").decode("utf-8")
