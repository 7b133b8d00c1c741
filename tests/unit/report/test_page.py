"""The page: valid, self-contained, all of it escaped, every chart with data, of unfinished and failed runs too."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nanochat.protocol.progress import Result
from nanochat.report.content import write_content
from nanochat.report.document import BarChart, Charts, Document, LineChart
from nanochat.report.html import content_security_policy, to_html
from nanochat.report.markdown import escaped, spark, to_markdown
from nanochat.report.run import read_run
from nanochat.report.writing import write_report
from tests.unit.report.conftest import ENVIRONMENT, Home, failure, metric, progress, sample, setup, training

EVIL = '</pre><script>alert(1)</script><img src="https://evil.example/x.png" onerror=x()> `` ``` | [a](http://e)'
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Elements, text and the depth of nesting; every element but void ones has to be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


@pytest.fixture
def chat(made: Home) -> Home:
    """A pretrained, a fine-tuned and a reinforced stage, each with something of its own."""
    base = str(made.path / "checkpoints" / "chat" / "pretrain" / "step_000010")
    lines = [*training(ends=[]), sample(1101.0, 10, EVIL, EVIL), Result(time=1101.0, output="x")]
    made.job("pretrain", "chat", lines, run="chat", dataset="d", note=EVIL)
    made.checkpoint("chat", "pretrain", 10, metrics={}, tokens=1000)
    core = {
        "core_metric": 0.11,
        "core_arc_easy": 0.3,
        "core_copa": -0.05,
        "core_copa_stderr": 0.02,
        "core_num_tasks": 2,
    }
    judged = [setup(3000.0), metric(3001.0, 10, **core), Result(time=3002.0, output=None)]
    made.job("evaluate", "judge", judged, checkpoint=base)
    made.job("sft", "chat", training(start=4000.0), run="chat", checkpoint=base)
    tasks = {"spelling_accuracy": 0.5, "spelling_stderr": 0.05, "spelling_count": 100.0, "chatcore_metric": 0.4}
    made.job("evaluate", "judge2", [metric(5000.0, 10, **tasks)], checkpoint="chat/sft/step_000010")
    rewards = [metric(6000.0 + i, i, reward_mean=i / 10, pass_at_1=i / 20, pass_at_8=i / 10, odd=1.0) for i in range(4)]
    made.job(
        "rl", "chat", [setup(6000.0), *rewards, progress(6005.0, 4)], run="chat", checkpoint="chat/sft/step_000010"
    )
    return made


def document(home: Home, run: str = "chat") -> Document:
    return write_content(read_run(home.path, run), 1_700_000_000.0)


def charts(document: Document) -> dict[str, LineChart | BarChart]:
    blocks = [block for section in document.sections for block in section.blocks if isinstance(block, Charts)]
    return {chart.title: chart for block in blocks for chart in block.charts}


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(chat: Home) -> None:
    html = to_html(document(chat))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html and "@import" not in html
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy == content_security_policy() and "default-src 'none'" in policy


def test_what_a_model_says_is_text_and_no_markup(chat: Home) -> None:
    page = Page(to_html(document(chat)))
    assert "".join(page.text).count(EVIL) >= 3  # prompt, answer, config
    markdown = to_markdown(document(chat))
    fence = re.search(r"^(`{4,})text\n(.*?)\n\1$", markdown, re.MULTILINE | re.DOTALL)
    assert fence and fence[2] == EVIL
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<", outside)


def test_markdown_stays_on_its_line() -> None:
    assert escaped("a\n# b | c `d` step_000001") == "a # b \\| c \\`d\\` step_000001"


def test_every_chart_has_data_a_name_a_description_and_its_numbers(chat: Home) -> None:
    page = to_html(document(chat))
    drawn = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(drawn) == len(charts_of_all_sections(document(chat))) == page.count("<summary>Numbers</summary>")
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.findall(".//polyline") or root.findall(".//rect") or root.findall(".//circle")
        assert root.find("title") is not None and (root.findtext("desc") or "").endswith(".")
        labels = (root.get("aria-labelledby") or "").split()
        assert labels == [root.find(name).get("id") for name in ("title", "desc")]  # type: ignore[union-attr]
    identities = re.findall(r'id="([^"]+)"', page)
    assert len(identities) == len(set(identities))


def charts_of_all_sections(document: Document) -> list[LineChart | BarChart]:
    blocks = [block for section in document.sections for block in section.blocks if isinstance(block, Charts)]
    return [chart for block in blocks for chart in block.charts]


def test_what_is_drawn(chat: Home) -> None:
    found = charts(document(chat))
    assert {"Training loss", "Validation bits per byte", "Learning rate of the matrices", "Tokens a second"} <= set(
        found
    )
    assert {"Reward", "pass@k", "Right answers by task"} <= set(found)
    passes = found["pass@k"]
    assert isinstance(passes, LineChart) and [curve.name for curve in passes.curves] == ["pass@1", "pass@8"]
    core = found["CORE by task: 0 is guessing, 1 is all right"]
    assert isinstance(core, BarChart)
    assert [(label, bars[0].value, bars[0].error) for label, bars in core.groups] == [
        ("arc easy", 0.3, None),
        ("copa", -0.05, 0.02),
    ]


def test_stages_stand_beside_each_other(chat: Home) -> None:
    markdown = to_markdown(document(chat))
    assert "|  | pretrain | sft | rl |" in markdown
    assert "| spelling | - | 50.0% ± 5.0 | - |" in markdown
    assert "| CORE | 0.11 | - | - |" in markdown
    assert "| pass@8 | - | - | 30.0% |" in markdown
    assert "| odd | 1 |" in markdown  # in the table of all metrics


def test_rent_is_that_of_all_jobs_on_all_ranks(chat: Home) -> None:
    markdown = to_markdown(document(chat))
    # 100 s pretrain + sample 1 s, evaluation 2 s, sft 100 s, rl 5 s = 208 s; x 8 x $2.69 / 3600 = $1.24.
    assert "**$1.24** rent, 8 x H100" in markdown
    # 1000 FLOPs x (1000 + 1000 + 400) tokens.
    assert "the 2.4e+06 FLOPs of its training steps" in markdown
    assert ENVIRONMENT.device_name in markdown and "0123456789ab" in markdown


def test_without_a_known_device_the_cost_is_an_estimate_and_says_so(made: Home) -> None:
    cpu = ENVIRONMENT.model_copy(update={"device_name": "A processor", "num_ranks": 1})
    lines = [setup(0.0, cpu), progress(10.0, 10)]
    made.job("pretrain", "r", lines)
    markdown = to_markdown(document(made, "r"))
    assert "estimate, on one H100" in markdown and "rent" not in markdown.split("## Cost")[0]
    assert "An estimate: what the" in markdown


def test_an_unfinished_run_says_how_far_it_is(made: Home) -> None:
    made.job("pretrain", "r", training(0, 4, ends=[]))
    markdown = to_markdown(document(made, "r"))
    assert "Unfinished: pretrain is at step 4 of 10 (40%)." in markdown
    assert "last heard of 1970-01-01 00:17 UTC" in markdown


def test_a_failed_run_shows_its_error(made: Home) -> None:
    made.job("pretrain", "r", training(0, 4, ends=[failure(1050.0, "a <b>broken</b> shard")]))
    found = document(made, "r")
    assert "> **Error:** Stage pretrain failed (data_error): a \\<b\\>broken\\</b\\> shard" in to_markdown(found)
    page = Page(to_html(found))
    assert ("p", {"class": "notice error", "role": "alert"}) in page.tags


def test_a_run_with_no_number_at_all_has_a_page(made: Home) -> None:
    made.job("pretrain", "r", [])
    assert "has not begun yet" in to_markdown(document(made, "r"))
    Page(to_html(document(made, "r")))


def test_both_files_are_written_whole_and_only_its_own_runs(chat: Home) -> None:
    chat.job("pretrain", "secret", training(), run="secret")
    written = write_report(chat.path, "chat")
    assert written.html == chat.path / "reports" / "chat" / "report.html"
    assert sorted(path.name for path in written.html.parent.iterdir()) == ["report.html", "report.md"]
    assert "secret" not in written.html.read_text() + written.markdown.read_text()


def test_text_that_utf8_cannot_hold_is_no_end_of_a_report(made: Home, tmp_path: Path) -> None:
    spec = made.job("pretrain", "r", training())
    with (made.folder(spec) / "progress.jsonl").open("a") as file:
        file.write('{"type":"sample","time":1101.0,"step":10,"prompt":"p","text":"\\ud800"}\n')
    assert write_report(tmp_path, "r").html.is_file()


def test_a_curve_as_blocks_has_its_lowest_and_highest() -> None:
    assert spark([(0, 1.0), (1, 8.0), (2, 4.5)]) == "▁█▅"
    assert spark([(0, 2.0), (1, 2.0)]) == "▁▁"
