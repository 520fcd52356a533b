"""Tables of samples on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.table import Table, TableWriter
from tunesmith.tokens.conversation import Sample

weights_ = st.floats(0, 8, width=32)
samples_ = st.lists(st.tuples(st.integers(0, 2**31 - 1), weights_), min_size=1, max_size=9).map(
    lambda pairs: Sample([i for i, _ in pairs], [w for _, w in pairs])
)
rows_ = st.lists(st.tuples(samples_, st.integers(-(2**63), 2**63 - 1), st.integers(0, 5)), max_size=8)


@given(rows_)
def test_what_was_written_is_read(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("table") / "t"
    with TableWriter(folder) as writer:
        for sample, group, copies in rows:
            writer.add(sample, group=group, copies=copies)
        assert len(writer) == len(rows)
    table = Table(folder)
    assert len(table) == len(rows)
    assert [table.sample(i) for i in range(len(rows))] == [sample for sample, _, _ in rows]
    assert table.groups.tolist() == [group for _, group, _ in rows]
    assert table.lengths.tolist() == [len(sample.ids) for sample, _, _ in rows]
    assert table.order().tolist() == [i for i, (_, _, copies) in enumerate(rows) for _ in range(copies)]
    assert table.label_tokens == sum(w > 0 for sample, _, _ in rows for w in sample.weights)


def test_an_empty_table_is_a_table(tmp_path):
    with TableWriter(tmp_path / "t"):
        pass
    table = Table(tmp_path / "t")
    assert len(table) == table.label_tokens == len(table.order()) == 0


def test_an_unfinished_table_is_none(tmp_path):
    def half():
        with TableWriter(tmp_path / "t") as writer:
            writer.add(Sample([1], [0.0]), group=0)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    with pytest.raises(FileNotFoundError):
        Table(tmp_path / "t")


def test_a_table_is_not_written_over(tmp_path):
    with TableWriter(tmp_path / "t"):
        pass
    with pytest.raises(FileExistsError):
        TableWriter(tmp_path / "t")


def test_types(tmp_path):
    with TableWriter(tmp_path / "t") as writer:
        writer.add(Sample([1, 2], [0.0, 1 / 3]), group=1)
    table = Table(tmp_path / "t")
    assert [c.dtype for c in table.columns()] == [np.int32, np.float32, np.int64, np.int64, np.int32]
