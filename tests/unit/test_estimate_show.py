"""Numbers of an estimate as people read them."""

import pytest
from tests.cases import each

from tunesmith.figures import binary_size
from tunesmith.local.estimate.options import quantity_bytes
from tunesmith.local.estimate.show import count, hours


@each(
    "text, size",
    [
        ("200Gi", 200 << 30),
        ("1.5Ti", 3 << 39),
        ("500G", 500 * 10**9),
        ("1024", 1024),
        (None, None),
        ("2k", 2000),
    ],
)
def test_a_quantity_in_bytes(text, size):
    assert quantity_bytes(text) == size


@each(
    "made, text",
    [
        (binary_size(0), "0"),
        (binary_size(5 * 2**30), "5.0 GiB"),
        (binary_size(3 * 2**39), "1.5 TiB"),
        (binary_size(2**20), "1.0 MiB"),
        (hours(12), "12 s"),
        (hours(3000), "50 min"),
        (hours(36000), "10.0 h"),
        (count(999), "999"),
        (count(25_300), "25.3k"),
        (count(7.6e9), "7,600M"),
        (count(30.5e9), "30.5G"),
    ],
)
def test_short_forms(made, text):
    assert made == text


def test_an_unreadable_quantity_is_none():
    assert quantity_bytes("some") is None
    assert pytest.approx(quantity_bytes("1e3")) == 1000
