import time
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.sampling.numbers import Number, last_number

# What is written, and what it is.
WRITTEN = {
    "42": 42,
    "0": 0,
    "00012": 12,
    "4.50": Fraction(9, 2),
    ".5": Fraction(1, 2),
    "1,234": 1234,
    "1,234.5": Fraction(2469, 2),
    "1,234,567": 1234567,
    "12,34,567": 1234567,
    "1'234": 1234,
    "1_000": 1000,
    "1\u202f234": 1234,
    "1{,}234": 1234,
    r"1\,234": 1234,
    "1.5e3": 1500,
    "1.5E-3": Fraction(3, 2000),
    "1.5×10^3": 1500,
    r"1.5 \times 10^{3}": 1500,
    "3×10⁵": 300000,
    "3×10⁻²": Fraction(3, 100),
    "10^5": 100000,
    "3/4": Fraction(3, 4),
    "3 / 4": Fraction(3, 4),
    "1 1/2": Fraction(3, 2),
    r"\frac{3}{4}": Fraction(3, 4),
    r"1\dfrac{1}{2}": Fraction(3, 2),
    r"\frac12": Fraction(1, 2),
    r"\frac 3 4": Fraction(3, 4),
    r"\dfrac3{4}": Fraction(3, 4),
    r"\cfrac{3}4": Fraction(3, 4),
    r"1\tfrac12": Fraction(3, 2),
    r"\frac{1,000}{3}": Fraction(1000, 3),
    r"\displaystyle\frac{1}{2}": Fraction(1, 2),
    r"45^\circ": 45,
    r"45^{\circ}": 45,
    r"1\;234": 1234,
    "0{.}5": Fraction(1, 2),
    "٤٢": 42,
    "٣٫٥": Fraction(7, 2),
    "४२": 42,
    "½": Fraction(1, 2),
    "1½": Fraction(3, 2),
    "3万": 30000,
    "1.5亿": 150000000,
    "5千": 5000,
    "2 million": 2000000,
    "3k": 3000,
    "２４": 24,
    "十八": 18,
    "一百二十": 120,
    "四分之三": Fraction(3, 4),
    "三又四分之一": Fraction(13, 4),
}
SIGNS = {"{}": 1, "-{}": -1, "−{}": -1, "负{}": -1, "+{}": 1, "minus {}": -1}
SHAPES = [
    "{}",
    "{}.",
    "The answer is {}.",
    "It was 7, then H2O and GPT-4: {}",
    "答案是{}。",
    "= {} \n\n",
    "**{}**",
    "({})",
    r"$\boxed{{{}}}$",
    "#### {}",
    "1. one\n2. two\n\n{}!",
    "<answer>{}</answer>",
    '{{"answer": {}}}',
    "So x_1 = {}",
    "{} m^2",
]
TABLE = [
    pytest.param(shape.format(sign.format(text)), WRITTEN[text] * SIGNS[sign], id=f"{at}-{text}")
    for at, (text, sign, shape) in enumerate(product(WRITTEN, SIGNS, SHAPES))
    if not (text[0] in "十一四三" and sign in ("+{}", "minus {}"))
    and not (text[-1] in "十八三一" and shape == "{} m^2")
]


@each(("reply", "value"), TABLE)
def test_numbers_that_can_be_read(reply, value):
    assert last_number(reply) == Number(Fraction(value))


@each("text", ["12%", "12 %", "１２％", "12 percent", r"12\%", "百分之十二", "百分之12"])
@each("shape", ["{}", "It is {}.", "答案：{}。", "**{}**"])
def test_percentages(text, shape):
    assert last_number(shape.format(text)) == Number(Fraction(12), percent=True)


UNREADABLE = [
    "3,5", "1,2,3", "0,125", "1.234,5", "1，234", "12:30", "2024-01-05", "3/4/2024", "10-5", "3–5",
    "2^10", "5²", "2√3", r"2\pi", "2π", r"\sqrt{2}", r"\frac{x}{2}", r"\frac{\sqrt{3}}{2}", "±5", "~5",
    "0x1F", "1.2.3", "1..2", "1 234", "100 200", "1/0", "NaN", "inf", "-Infinity", "∞", r"\infty",
    "1e999", "1e-99999", "9" * 401, "一百二", "三千", "3万5千", "a)-5",
    "1 000 000", r"0.\overline{3}", r"0.\dot{3}", "0.3\u0305", "5‰", "5 hundred thousand", r"3 \frac{-1}{2}",
    "壹佰", "廿",
]  # fmt: skip


@each("shape", ["{}", "The answer is {}.", "It was 7, so {}", "答案是 {}。", "**{}**"])
@each("text", UNREADABLE)
def test_what_cannot_be_read_for_certain_is_no_number(text, shape):
    assert last_number(shape.format(text)) is None


@pytest.mark.parametrize(
    "text", ["H2O", "GPT-4", "x_1", "x_{1}", "m^2", "m^{2}", "第3题", "一定", "有三个苹果", "二、"]
)
def test_digits_of_words_are_passed_over(text):
    assert last_number(text) is None
    assert last_number(f"7 and {text}") == Number(Fraction(7))


@each("text", [r"\boxed{- 5}", "(- 5)", "= - 5"])
def test_a_minus_apart_from_its_number(text):
    assert last_number(f"7 and {text}") == Number(Fraction(-5))


@given(st.integers(-(10**30), 10**30))
def test_whole_numbers_however_grouped(number):
    for text in (str(number), f"{number:,}", f"{number:_}", f"So: ${number:,}$."):
        assert last_number(text) == Number(Fraction(number))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_as_python_writes_them(number):
    assert last_number(f"x = {number!r}") == Number(Fraction(repr(number)))


@given(
    st.text(
        st.sampled_from("0123456789.,-+/^eE%×x* 一二十百千万亿点分之又½\\frac{}√∞nainf$()\u2009\n"),
        max_size=60,
    )
)
def test_nothing_raises(text):
    last_number(text)


@each(
    "text",
    [
        "1,",
        "1 ",
        "12,",
        "1,234,",
        "-",
        "(",
        r"\frac{",
        r"\frac1",
        r"\frac{1",
        "0.{",
        "1 000 ",
        "壹",
        "9",
        "10^",
        "一",
        "1e",
        "一又",
    ],
)
def test_time_is_linear(text):
    started = time.process_time()
    last_number(text * (100_000 // len(text)))
    assert time.process_time() - started < 2


@each(
    ("one", "other", "tolerance", "equal"),
    [
        ("3.14", "3.15", 0.01, True),
        ("3.14", "3.1501", 0.01, False),
        ("0.1", "0.2", 0, False),
        ("1/3", "0.3333333333333333", 0, True),
        ("0.3", "0.30000000000000004", 0, True),
        ("1000000000000000000", "1000000000000000001", 0, False),
        ("12%", "12", 0, True),
        ("12%", "0.12", 0, True),
        ("12%", "12%", 0, True),
        ("12%", "0.12%", 0, False),
        ("12%", "1200", 0, False),
        ("-5", "5", 0, False),
    ],
)
def test_equality(one, other, tolerance, equal):
    first, second = last_number(one), last_number(other)
    assert first.equals(second, tolerance) is equal
    assert second.equals(first, tolerance) is equal
