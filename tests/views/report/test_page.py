"""The report: one file, whole, escaped, honest about what is missing, never too large."""

import json
import re
from html.parser import HTMLParser

import pytest

from helpers.sample_runs import HOSTILE, PAIRS, make_run, make_trace, results
from helpers.sample_scores import write_lifelong, write_scores
from helpers.sample_tasks import write_answers
from lpr_lab.errors import UsageError
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.people.own_texts import keep_text, new_id
from lpr_lab.runs.people.sittings import begin, keep_sitting
from lpr_lab.runs.run import Run
from lpr_lab.views.report import charts as report_charts
from lpr_lab.views.report import page as report
from lpr_lab.views.report import sections
from lpr_lab.views.report.page import render_report, write_report


class Page(HTMLParser):
    """Elements and text of a page, as a browser's parser would find them."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        self.words = re.sub(r"\s+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def figures_of(text: str) -> dict:
    return json.loads(text.split('id="lpr-figures">')[1].split("</script>")[0])["figures"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(run) -> str:
    return render_report([run])


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_it_is_one_file_that_names_nothing_elsewhere(page, text):
    assert len(text.encode()) < 8_000_000
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:")), (tag, target)
    assert "@import" not in text and not re.search(r"url\((?!data:)", text.split("</style>")[0])


def test_only_scripts_named_by_hash_may_run_and_nothing_may_be_fetched(page, text):
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0] and "unsafe-eval" not in policy and "http" not in policy
    running = [part.split("</script>")[0] for part in text.split("<script>")[1:]]
    assert [report._hash(script) in policy for script in running] == [True]
    assert report._hash(report._plotlyjs()) in policy
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_it_says_what_came_of_the_run_and_how_to_repeat_it(page, run):
    for part in (
        run.title,
        "was taught Greek, Hungarian and Turkish",
        "95 % interval",
        "6 of 6 promises of the method hold",
        "stage1.learning_rate",
        "its licences are not known",
        "Phases, ",
        "agree for 1 token, then part",
        "Where the tokens went, layer by layer",
        "packages.torch",
        "It goes on from no other run",
    ):
        assert part in page.words, part


def test_every_chart_has_its_numbers_as_a_table(page, text):
    figures = figures_of(text)
    places = [one for one in page.all("div") if "data-figure" in one]
    assert {one["data-figure"] for one in places} == set(figures)
    assert {"r1-retention-heldout", "r1-routing-layers", "r1-routing-profile", "r1-training-lm_loss"} <= set(figures)
    for one in places:
        after = text.split(f'data-figure="{one["data-figure"]}"')[1]
        assert after.index("<summary>Show as table</summary>") < after.find("data-figure=") % len(after)


@pytest.mark.slow
def test_texts_from_a_run_stay_texts(tmp_path):
    nasty = "</script><script>boom()</script><img src=x onerror=boom()>${boom()}<!--"
    run = make_run(tmp_path, title=nasty, finished=False, config={"base": nasty, "notebook": nasty})
    found = results()
    found["base"] = nasty
    found["claims"][0]["text"] = nasty
    run.traces.write("hostile", make_trace(HOSTILE))
    run.generations.append({"language": nasty, "prompt": nasty, "base": nasty, "expanded": nasty, "diverged_at": 0})
    texts = {nasty: {nasty: {"n_documents": 1}}}
    run.documents.write("data", {"sources": [{"name": nasty, "licence": nasty}], "texts": texts})
    run.figures.write("mine", {"data": [{"x": [nasty], "y": [1], "name": nasty}], "layout": {"title": {"text": nasty}}})
    (run.path / "notes.md").write_text(nasty)
    run.finish(found)
    text = render_report([run, run], title=nasty, language='"><script>')
    page = Page(text)
    assert len(page.all("script")) == 3 and not page.all("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert text.count("<!--") == 0 and figures_of(text)


def test_what_is_missing_is_said_and_no_section_is_left_out(tmp_path):
    bare = Run.create(tmp_path, kind="plan", slug="x", title="Nothing yet", config={"budget": 1})
    text = render_report([bare])
    page = Page(text)
    for key in list(report.SECTIONS)[:-1]:
        assert "Not measured." in text.split(f'<section id="r1-{key}"')[1].split("</section>")[0], key
    assert "it is queued, at its start" in page.words and "It was made from Python" in page.words
    assert [one["id"] for one in page.all("section") if "id" in one] == [f"r1-{key}" for key in report.SECTIONS]


def test_a_failed_run_shows_its_last_words_and_damaged_files_are_named(tmp_path):
    run = make_run(tmp_path, finished=False)
    (run.path / "tables" / "change.csv").write_bytes(b'"a"\n"\xff"')
    (run.path / "tables" / "load.csv").write_text('"other"\n"x"\n')
    (run.path / "traces" / "el.npz").write_text("no")
    run.stop("failed", error_tail="RuntimeError: <b>no</b>")
    text = render_report([run])
    assert "RuntimeError: &lt;b&gt;no&lt;/b&gt;" in text and "it is failed" in text
    assert (
        "change.csv is not readable" in text
        and "KeyError: &#39;dataset&#39;" in text
        and text.count("Not readable.") >= 4
    )
    assert str(tmp_path) not in text


@pytest.mark.slow
@pytest.mark.parametrize("own_texts", [False, True])
@pytest.mark.parametrize("compare_pairs", [False, True])
def test_what_people_typed_is_in_it_only_when_asked_for_and_what_the_run_made_always(
    tmp_path, own_texts, compare_pairs
):
    run = make_run(tmp_path)
    run.traces.write("own-0123abcd", make_trace("Kept unnamed long ago.", "en", num_layers=2))
    keep_text(run, new_id(), "My letter", make_trace("Dearest cousin.", "en", num_layers=2))
    pair = Pair("My secret prompt", "en", Continuation("a"), Continuation("b"), seconds=1.0)
    run.generations.append(pair.to_record({"max_new_tokens": 4, "temperature": 0.0, "seed": 0}))
    text = re.sub("<[^>]*>", "", render_report([run], own_texts=own_texts, compare_pairs=compare_pairs))
    typed = {"Dearest cousin": own_texts, "My letter": own_texts, "Kept unnamed": own_texts}
    typed["My secret prompt"] = compare_pairs
    assert {words: words in text for words in typed} == typed
    assert "The ferry leaves at seven" in text and PAIRS[0][1] in text


def test_a_run_that_compares_two_models_keeps_its_own_pairs(tmp_path):
    run = Run.create(tmp_path, kind="comparison", slug="x", title="Two", config={"run": "20260101-000000Z-a-0000"})
    pair = Pair("A prompt of the notebook", "en", Continuation("a"), Continuation("b"), seconds=1.0)
    run.generations.append(pair.to_record({"max_new_tokens": 4, "temperature": 0.0, "seed": 0}))
    assert "A prompt of the notebook" in render_report([run])


@pytest.mark.slow
def test_several_runs_begin_with_what_differs(tmp_path, run):
    other = make_run(tmp_path, title="Another", config={**run.config, "seed": 7}, finished=False)
    found = results()
    found["summary"]["heldout"]["expanded"]["mean_change_percent"] -= 5
    other.finish(found)
    text = render_report([run, other], title="Δύο", language="el")
    page = Page(text)
    assert "1 of" in page.words and "settings differ" in page.words
    assert page.all("h1") == [{"lang": "el", "dir": "ltr"}]
    assert "−19.9%" in text and text.index('id="side-by-side"') < text.index('id="r1-top"') < text.index('id="r2-top"')
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(text.encode()) < 8_000_000


def test_results_on_other_documents_are_not_put_side_by_side(tmp_path, run):
    other = make_run(tmp_path, finished=False)
    found = results()
    found["change"] = [{**row, "test_set": "other"} for row in found["change"]]
    other.finish(found)
    head = render_report([run, other]).split('id="r1-top"')[0]
    assert "Their test sets hold different documents" in head and "Change by language" not in head


def test_stages_experts_and_plans_are_drawn_where_they_were_measured(tmp_path):
    lifelong = write_lifelong(tmp_path)
    assert "r1-retention-by-stage" in figures_of(render_report([lifelong]))
    run = make_run(tmp_path)
    write_scores(run)
    assert "r1-retention-heldout" in figures_of(render_report([run]))


def test_what_would_make_the_file_too_large_is_left_out_and_named(tmp_path, run, monkeypatch):
    monkeypatch.setattr(report, "MAX_BYTES", report._fixed_bytes() + 120_000)
    text = render_report([run, run, run])
    assert len(text.encode()) < report.MAX_BYTES
    assert "Left out, to keep this file" in text


def test_a_report_of_nothing_or_of_everything_is_refused(run):
    with pytest.raises(UsageError, match="needs a run"):
        render_report([])
    with pytest.raises(UsageError, match="at most 24"):
        render_report([run] * 25)


def test_it_is_written_whole(tmp_path, run):
    size = write_report([run], tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").stat().st_size == size


# ------------------------------------------------------------------------------------------------------ figures


def test_figures_of_others_lose_what_reaches_beyond_the_page():
    figure = {
        "data": [{"type": "scattermapbox"}, {"type": "bar", "name": '<a href="javascript:x">a</a>', "y": [1]}, "junk"],
        "layout": {"images": [{"source": "https://example.org/x.png"}], "template": {}, "title": {"text": "t"}},
    }
    assert report_charts.drawable(figure) == {"data": [{"type": "bar", "name": "a", "y": [1]}], "layout": {}}


@pytest.mark.parametrize(
    ("figure", "rows"),
    [
        ({"data": [{"x": ["a", "b"], "y": [1, 2.5], "name": "n"}]}, [("n", "a", "1"), ("n", "b", "2.5")]),
        ({"data": [{"type": "heatmap", "z": [[1], [None]], "x": ["a"]}]}, [("0", "1"), ("1", "–")]),
        ({"data": [{"type": "heatmap", "z": []}], "layout": "junk"}, []),
        ({"data": [{"x": [0, 1], "y": {"dtype": "f8", "bdata": "AAAAAAAA8D8AAAAAAAAAQA=="}}]},
         [("series 1", "0", "1"), ("series 1", "1", "2")]),
    ],
)  # fmt: skip
def test_any_figure_becomes_a_table(figure, rows):
    assert report_charts.as_table(figure)[1] == rows


def test_long_tables_are_thinned_evenly():
    rows = report_charts._thinned([(str(n),) for n in range(1000)])
    assert len(rows) <= report_charts.MAX_ROWS and rows[0] == ("0",) and report_charts._thinned([]) == ()


def test_tasks_stand_in_it_only_where_they_were_asked(tmp_path):
    asked = make_run(tmp_path)
    assert not sections.tasks(asked)
    write_scores(asked)
    write_answers(asked)
    said = Page(str(sections.tasks(asked))).words
    assert "Continuation choice" in said and "G1 review" in said and "25%" in said


def test_what_sittings_came_to_is_told_and_those_that_go_on_are_not(tmp_path):
    run = make_run(tmp_path)
    assert not sections.judged_blind(run)
    over = begin(("base", "expanded"), [(f"Prompt {number}.", "en") for number in range(6)], {})
    for place in range(6):
        over = over.with_written(place, "one", "other")
        over = over.with_choice(place, "left" if over.prompts[place].swapped else "right")  # always the expanded model
    going_on = begin(("base", HOSTILE), [("Another.", "en")], {})
    keep_sitting(run, over)
    keep_sitting(run, going_on)
    said = Page(render_report([run])).words
    assert "6 of 6 prompts: Expanded model is preferred. Base model 0, Expanded model 6 (n = 6, p = 0.031)" in said
    assert said.count("no difference 0") == 1
