"""The picture is well-formed, holds what it was given, and survives what was not measured."""

from xml.etree import ElementTree

from nanochat.bench.serving.plot import Chart, Line, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_every_value_is_a_point_and_higher_values_are_higher_up() -> None:
    chart = Chart(title="Output", unit="tokens/s", lines=[Line(name="all", values=[10.0, 40.0])])
    root = ElementTree.fromstring(draw("a <model>", "requests at once", [1, 4], [chart]))
    first, second = (float(circle.get("cy", "")) for circle in root.iter(f"{SVG}circle"))
    assert first > second == 0  # the top of the scale is the largest value, rounded up


def test_names_are_text_and_no_markup() -> None:
    root = ElementTree.fromstring(draw("<script>", "a & b", [1], []))
    assert [text.text for text in root.iter(f"{SVG}text")] == ["<script>"]


def test_what_was_not_measured_has_no_point() -> None:
    chart = Chart(title="First token", unit="ms", lines=[Line(name="p50", values=[None, 5.0, None])])
    root = ElementTree.fromstring(draw("t", "l", [1, 2, 3], [chart]))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
    draw("t", "l", [1], [Chart(title="c", unit="u", lines=[Line(name="n", values=[None])])])
