"""Numbers are read exactly, and what is no number is not read as one."""

import doctest
from decimal import Decimal
from fractions import Fraction
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.tasks import markup, numbers
from llm2llm.components.shared.tasks.markup import plain
from llm2llm.components.shared.tasks.numbers import read_numbers, show

F = Fraction

READ = {
    "5": [5],
    "+5": [5],
    "-5": [-5],
    "- 5": [-5],
    "\u22125": [-5],  # minus sign
    "\u20135": [-5],  # en dash
    "\u20115": [-5],  # no-break hyphen
    "\uff0d5": [-5],
    "-$5": [-5],
    "$-5": [-5],
    "- $5": [-5],
    "-US$5": [-5],
    "-USD 5": [-5],
    "-(5)": [-5],
    "(-5)": [-5],
    "($5)": [5],
    "minus 5": [-5],
    "negative 5": [-5],
    "x = - 5": [-5],
    "x = -5": [-5],
    "it is - 5": [-5],
    "(b) -5": [-5],
    "apples - 5": [5],
    "10 - 5": [10, 5],
    "10-5": [10, 5],
    "10 -5": [10, -5],
    "(2)-5": [2, 5],
    "the total--5": [5],
    "5-year-old": [5],
    "0.5": [F(1, 2)],
    ".5": [F(1, 2)],
    "-.5": [F(-1, 2)],
    "5.": [5],
    "5.0": [5],
    "5.50.": [F(11, 2)],
    "...18": [18],
    "Rs.18": [18],
    "1,234": [1234],
    "1,234,567.89": [F(123456789, 100)],
    "-1,234.5%": [F(-2469, 2)],
    "1\u00a0234\u202f567": [1234567],
    "1,234, and": [1234],
    "1,234,": [1234],
    "3,4": [3, 4],
    "1,23": [1, 23],
    "1,2,3": [1, 2, 3],
    "0,500": [0, 500],
    "000,123": [0, 123],
    "1.5,2.5": [F(3, 2), F(5, 2)],
    "12,34,567": [12, 34, 567],
    "$18.50": [F(37, 2)],
    "18 €": [18],
    "£ 18": [18],
    "50%": [50],
    "5 million": [5_000_000],
    "$1.5 billion": [1_500_000_000],
    "72k": [72_000],
    "-72K": [-72_000],
    "$1.2M": [1_200_000],
    "1.2M views": [1_200_000],
    "7bn": [7_000_000_000],
    "$5m": [5_000_000],
    "$5 bn": [5_000_000_000],
    "5 M€": [5_000_000],
    "₹5 cr": [50_000_000],
    "3万": [30_000],
    "3万5千": [35_000],
    "1億2000万": [120_000_000],
    "2千万円": [20_000_000],
    "1만 2345": [10_000, 2345],
    "5 lakh": [500_000],
    "1.5 lakh crore": [1_500_000_000_000],
    "1.5 Mio.": [1_500_000],
    "2.5 млн": [2_500_000],
    "3 mil millones": [3_000_000_000],
    "5 Million": [5_000_000],
    "5 hundred thousand": [500_000],
    "1 1/2 million": [1_500_000],
    "½ million": [500_000],
    "72k/3": [72_000, 3],
    "1,2 million": [1, 2],
    "$18 t-shirt": [18],
    "$20 bill": [20],
    "5km": [5],
    "5m": [5],
    "2 dozen": [2],
    "3万5": [],
    "5兆": [],
    "18kg": [18],
    "18 km/h": [18],
    "18/day": [18],
    "1/2": [F(1, 2)],
    "-3/4": [F(-3, 4)],
    "16 / 2": [8],
    "1,000/2.5": [400],
    "1 1/2": [F(3, 2)],
    "-1 1/2": [F(-3, 2)],
    "½": [F(1, 2)],
    "5½": [F(11, 2)],
    "5 ½": [F(11, 2)],
    "-½": [F(-1, 2)],
    "it is -½": [F(-1, 2)],
    "1⁄2": [F(1, 2)],
    "1/4th": [F(1, 4)],
    "007": [7],
    "1e3": [1000],
    "1.5E-2": [F(3, 200)],
    "１８": [18],
    "٣": [3],
    "25 m²": [25],
    "25 m^2": [25],
    "": [],
    "no number": [],
    "2nd": [],
    "the 42ND street": [],
    "B12": [],
    "1/0": [],
    "1 1/0": [],
    "1.2.3": [],
    "1.000.000,00": [],
    "it costs 1.234.567,89 in all": [],
    "5/6/2024": [],
    "1/2/3": [],
    "10^2": [],
    "10²": [],
    "10⁻²": [],
    "√2": [],
    "2π": [],
    "1_000": [],
    "1e999": [],
    "Infinity": [],
    "NaN": [],
}  # fmt: skip


@pytest.mark.parametrize(("text", "values"), READ.items(), ids=map(repr, READ))
def test_read(text: str, values: list[Fraction]) -> None:
    assert read_numbers(text) == values


@pytest.mark.parametrize(
    ("value", "text"),
    [(18, "18"), (-18, "-18"), (0, "0"), (F(-5, 2), "-2.5"), (F(1, 3), "1/3"), (F(-1, 3), "-1/3"),
     (F(1, 1000), "0.001"), (F(12345, 100), "123.45"), (F(1, 64), "0.015625")],
)  # fmt: skip
def test_show(value: int | Fraction, text: str) -> None:
    assert show(Fraction(value)) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"\$18", "$18"),
        (r"\frac{1}{2}", "1/2"),
        (r"-\dfrac{1}{2}", "-1/2"),
        (r"2\frac{1}{2}", "2 1/2"),
        (r"\frac12", "1/2"),
        (r"1{,}234", "1,234"),
        (r"1\,234", "1,234"),
        (r"18\%", "18%"),
        (r"18\text{ dollars}", "18 dollars"),
        (r"\sqrt{2}", "√2}"),
        ("3*4=<<3*4=12>>12", "3*4=12"),
        ("3*4=$<<3*4=1", "3*4=$"),
        ("__18__ and _5_", "18 and 5"),
        ("snake_case", "snake_case"),
    ],
)
def test_plain(text: str, result: str) -> None:
    assert plain(text) == result


LARGE = 10**100 - 1
values = st.one_of(
    st.fractions(),
    st.decimals(allow_nan=False, allow_infinity=False, places=4).map(Fraction),
    st.builds(Fraction, st.integers(-LARGE, LARGE), st.integers(1, LARGE)),
    st.builds(lambda n, twos, fives: Fraction(n, 2**twos * 5**fives), st.integers(-LARGE, LARGE),
              st.integers(0, 100), st.integers(0, 70)),
).filter(lambda value: abs(value) <= LARGE and value.denominator <= LARGE)  # fmt: skip


@given(values)
def test_what_is_shown_is_read_again(value: Fraction) -> None:
    assert read_numbers(show(value)) == [value]


@given(st.text(alphabet="0123456789.,/-+ $%^_eE()½²\n", max_size=40))
def test_every_value_that_is_read_can_be_read_again(text: str) -> None:
    for value in read_numbers(text):
        assert read_numbers(show(value)) == [value]


@pytest.mark.parametrize("module", [markup, numbers], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings(module: ModuleType) -> None:
    assert doctest.testmod(module) == (0, 1)


@pytest.mark.parametrize(
    ("text", "unclear"),
    [
        ("2 dozen", "2 dozen"),
        ("he has 2 dozen eggs", "2 dozen"),
        ("5m", "5m"),
        ("$5 m", "$5 m"),
        ("72 k", "72 k"),
        ("5 mil", "5 mil"),
        ("5兆", "5兆"),
        ("72k", None),
        ("$5m", None),
        ("5 m", None),
        ("5km", None),
        ("$18 t-shirt", None),
        ("3 million", None),
        ("3 mil millones", None),
    ],
)
def test_what_may_be_a_magnitude_or_a_unit(text: str, unclear: str | None) -> None:
    assert numbers.unclear_magnitude(text) == unclear


MAGNITUDES = {"k": 10**3, "K": 10**3, "M": 10**6, "bn": 10**9, " thousand": 10**3, " million": 10**6, " lakh": 10**5,
              " Mrd.": 10**9, "万": 10**4, "億": 10**8, " тыс.": 10**3}  # fmt: skip


@given(st.decimals(0, 9999, places=2, allow_nan=False), st.sampled_from(sorted(MAGNITUDES)), st.sampled_from(["", "-"]))
def test_a_magnitude_multiplies(value: Decimal, magnitude: str, sign: str) -> None:
    expected = Fraction(value) * MAGNITUDES[magnitude] * (-1 if sign else 1)
    assert read_numbers(f"{sign}{value}{magnitude}") == [expected]
