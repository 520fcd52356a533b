"""Small amounts keep their digits: none is shown as nothing."""

from tests.cases import each

from tunesmith.figures import about_minutes, binary_size, decimal_size, usd
from tunesmith.local.estimate.show import hours


@each("made, text", [
    (usd(0), "0.00 USD"),
    (usd(-100), "-100.00 USD"),
    (usd(-0.0123456), "-0.0123 USD"),
    (usd(float("nan")), "nan USD"),
    (usd(12.345), "12.35 USD"),
    (usd(1234.5), "1,234.50 USD"),
    (usd(0.0123456), "0.0123 USD"),
    (usd(0.0004), "0.00040 USD"),
    (usd(0.00001234), "0.000012 USD"),
    (usd(1e-30), "0.000000000000 USD"),
    (about_minutes(0.2), "Under a minute"),
    (about_minutes(59), "Under a minute"),
    (about_minutes(150), "About 2.5 minutes"),
    (hours(0.2), "under 1 s"),
    (hours(0), "0 s"),
    (hours(12), "12 s"),
    (binary_size(0), "0"),
    (binary_size(3 * 2**39), "1.5 TiB"),
    (binary_size(700), "0.7 KiB"),
    (decimal_size(2e9), "2.00 GB"),
    (decimal_size(1_500_000), "1.5 MB"),
    (decimal_size(4_000), "4.0 kB"),
    (decimal_size(0), "0.00 GB"),
])  # fmt: skip
def test_figures(made, text):
    assert made == text
