"""The page "Do the claims hold?": a document made on the server, from runs or from what came with the code."""

import threading
import time

import httpx
import pytest
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.sample_scorecard import language_run, scorecard_runs
from lpr_lab.dashboard import about, claims, claims_address, claims_bases, making, serve
from lpr_lab.dashboard.query import Query
from lpr_lab.experiments.each_language.table import build_table
from lpr_lab.experiments.scorecard import build
from lpr_lab.experiments.scorecard.plan import card_for, chosen_card
from lpr_lab.runs.scorecard import table
from lpr_lab.runs.scorecard.claims import CLAIMS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    card = scorecard_runs(root)
    return root, build.build(card, root)


def rendered(root, card=claims_address.DEFAULT):
    *_, last = claims.claims_steps(root, card)
    return last.result


def show(monkeypatch, card, source="the runs"):
    monkeypatch.setattr(claims, "build_steps", lambda of, runs: iter([build.ScorecardStep(1, 1, card)]))
    monkeypatch.setattr(claims, "settled", lambda found, of, runs_dir: (found, source))


@pytest.fixture
def page(made, monkeypatch):
    root, card = made
    show(monkeypatch, card, f"the runs in {root}")
    return rendered(root)


def test_every_claim_stands_there_below_the_instrument_with_its_verdict_and_command(page, made):
    _, card = made
    assert page.index("The instrument before its readings") < page.index("The claims") < page.index("The arms")
    for row in card["claims"]:
        assert f'id="claim-{row["number"]}"' in page and f'href="#claim-{row["number"]}"' in page
        assert row["command"] in page
    assert f"{card['verdicts']['not decidable here']} are not decidable here" in page


def test_runs_that_are_here_are_linked_and_others_only_named(page, made, tmp_path):
    _, card = made
    runs = [run for arm in card["arms"] for run in arm["runs"].values()]
    assert all(f'href="/?run={run}"' in page for run in runs)
    assert not any(f"run={run}" in rendered(tmp_path) for run in runs)


def test_what_was_written_into_a_scorecard_stays_text(made, monkeypatch, tmp_path):
    _, card = made
    bad = {**card, "claims": [{**card["claims"][7], "claim": "<script>boom</script>"}]}
    show(monkeypatch, bad, "<b>")
    page = rendered(tmp_path)
    assert "<script>boom" not in page and "&lt;script&gt;boom" in page


def test_a_base_without_a_scorecard_says_how_to_make_one(tmp_path):
    assert "lpr-lab scorecard run --base nothing" in rendered(tmp_path, card_for("nothing"))


def test_a_scorecard_of_chosen_languages_has_an_address_that_the_page_of_its_base_leads_to(made):
    root, card = made
    chosen = card_for(expanded=("hu",))
    page = rendered(root, chosen)
    assert all(f'href="/?run={run}"' in page for arm in card["arms"] for run in arm["runs"].values())
    assert "lpr-lab scorecard run --base small-world --expanded hu --only 15" in page
    own = rendered(root)
    assert 'href="/claims?base=small-world&amp;expanded=hu"' in own and "came with the code" in own


def test_while_hundreds_of_runs_are_read_the_page_says_how_far_it_is_and_comes_by_itself(made, monkeypatch):
    _, card = made
    goes_on, begun = threading.Event(), []

    def steps(of, runs):
        begun.append(of)
        yield build.ScorecardStep(3, 12)
        goes_on.wait(30)
        yield build.ScorecardStep(12, 12, card)

    show(monkeypatch, card)
    monkeypatch.setattr(claims, "build_steps", steps)
    monkeypatch.setattr(claims, "PATIENCE", 0.2)
    app = Starlette(routes=[claims.claims_route(made[0])])
    with TestClient(app) as reader:
        waiting = reader.get("/claims")
        assert 'http-equiv="refresh"' in waiting.text and "3 of 12" in waiting.text and "left" in waiting.text
        assert 'id="claim-1"' not in waiting.text
        goes_on.set()
        monkeypatch.setattr(claims, "PATIENCE", 30)
        page = reader.get("/claims").text
        assert 'id="claim-1"' in page and 'http-equiv="refresh"' not in page
        assert reader.get("/claims").text == page and len(begun) == 1, "made once"


def test_all_bases_stand_side_by_side_and_each_verdict_leads_to_its_claim(made):
    root, _ = made
    app = Starlette(routes=[claims_bases.bases_route(root)])
    with TestClient(app) as reader:
        while 'http-equiv="refresh"' in (page := reader.get("/claims/bases").text):
            time.sleep(0.1)
    for claim in CLAIMS:
        assert f'href="/claims?base=smollm2-135m#claim-{claim.number}"' in page
        assert (f'id="claim-{claim.number}"' in page) == bool(claim.parts)
    assert "wherever they can be decided" in page and "came with the code" in page
    assert 'href="/claims/bases"' in rendered(root), "the page of a base leads there"


def test_a_document_that_failed_is_begun_again():
    tries = []

    def steps(name):
        tries.append(name)
        yield making.DocumentStep(0, 1)
        if len(tries) == 1:
            raise OSError("the disk was away")
        yield making.DocumentStep(1, 1, Markup("there"))

    documents = making.Documents(steps)
    with pytest.raises(OSError, match="away"):
        documents.of("a").wait(30)
    assert documents.of("a").wait(30).result == "there" and documents.of("a").wait(30).result == "there"
    assert tries == ["a", "a"]


def test_the_page_says_what_text_the_numbers_are_of(made, monkeypatch, tmp_path):
    _, card = made
    for test_set, words in (("heldout", "held-out text of another genre"), ("dev", "dev text of the same genre")):
        show(monkeypatch, {**card, "test_set": test_set})
        assert f"Bits per byte on {words}" in rendered(tmp_path)


def test_an_address_of_a_card_is_read_back_as_that_card():
    chosen = {"corpus": "my texts/é.jsonl", "original": ["en"], "expanded": ["el", "qac_Latn"], "precision": "fp32"}
    chosen |= {"tasks": ["choice", "inflection"], "unreviewed": ["fi"], "further": ["de", "bn"]}
    for base in ("small-world", "smollm2-135m", "Qwen/Qwen3-0.6B", "/a folder/model"):
        for given in ({}, *({name: value} for name, value in chosen.items()), {"tasks": ["none"]}, chosen):
            card = chosen_card(base, **given)
            address = httpx.URL("http://here" + claims_address.query_of(card).link("/claims"))
            assert claims_address.card_of(Query.parse(dict(address.params))) == card
    for wrong in ({"precision": "fp17"}, {"tasks": "riddles"}, {"expanded": "de", "further": "de"}):
        assert claims_address.card_of(Query.parse({"base": "small-world", **wrong})) == claims_address.DEFAULT


def test_languages_that_were_taught_alone_stand_there_with_their_numbers(tmp_path):
    assert "One language at a time" not in rendered(tmp_path)
    root = tmp_path / "runs"
    for code, change, tokens in (("hu", -0.05, 0.61), ("tr", -0.02, 0.58)):
        language_run(root, code, change, tokens_per_byte=tokens, similarity=0.21)
    page = rendered(root)
    table = build_table("small-world", root)
    assert page.index("Hungarian") < page.index("Turkish") and "0.61" in page and "rank correlation" in page
    assert all(f'href="/?run={run}"' in page for row in table["rows"] for run in row["runs"].values())


def test_methods_stand_there_at_equal_gain_with_why_where_there_is_no_number(made, monkeypatch, tmp_path):
    _, card = made
    known = {"value": -1.25, "low": -2.0, "high": -0.5, "seeds": 3, "by_seed": {}}
    unknown = {"value": None, "low": None, "high": None, "seeds": 0, "by_seed": {}}
    rows = [
        {"method": "route_first", "arms": ["a", "b"], "more": known, "why": ""},
        {"method": "lora", "arms": ["c", "d"], "more": unknown, "why": "No gain was reached by all"},
    ]
    show(monkeypatch, {**card, "equal_gain": rows})
    page = rendered(tmp_path)
    assert "route first" in page and "−1.25 (−2.00 to −0.50)" in page and "No gain was reached by all" in page
    assert page.partition('id="equal-gain"')[2].count('class="lpr-interval"') == 1


def test_rules_for_where_experts_go_stand_there_beside_uniform(made, monkeypatch, tmp_path):
    def of(value, low=None, high=None):
        return {"value": value, "low": low, "high": high, "seeds": 3, "by_seed": {}}

    _, card = made
    rules = [
        {
            "arms": [name],
            "rule": name,
            "experts": experts,
            "expanded": of(-2.5, -3.0, -2.0),
            "original": of(0.5),
            "expanded_less_uniform": of(less),
            "original_less_uniform": of(None),
        }
        for name, experts, less in (("random", [[1, 3], [2, 2], [3, 1], [4, 0]], 0.31), ("uniform", [[2, 2]], None))
    ]
    scores = [{"score": "mlp_input", "values": [-0.1, 0.4], "correlation": {"value": 0.5, "low": None, "high": None}}]
    shown = {**card, "allocations": {"rules": rules, "scores": scores}}
    show(monkeypatch, shown)
    page = rendered(tmp_path)
    assert "−2.50 (−3.00 to −2.00)" in page and "+0.31" in page
    assert page.partition('id="allocations"')[2].count('class="lpr-interval"') == 1
    assert 'aria-label="1 3"' in page and 'aria-label="4 0"' not in page and "1 more" in page
    assert "mlp input" in page and "-0.1 0.4" in page
    monkeypatch.undo()
    assert 'id="allocations"' not in rendered(tmp_path, card_for("small-world", expanded=("hu",))), "not run"


@pytest.mark.slow
def test_the_page_is_served_and_every_page_leads_to_it(made, monkeypatch):
    root, card = made
    show(monkeypatch, card)
    monkeypatch.setattr(claims, "PATIENCE", 60)
    address = serve(root, port=None, open_browser=False, block=False)
    answer = httpx.get(f"{address}{about.CLAIMS}", timeout=60)
    assert answer.status_code == 200 and answer.text.count("<article") == len(CLAIMS)
    assert about.CLAIMS in about.footer()


def test_a_saved_scorecard_shows_where_there_are_no_runs(tmp_path):
    if table.saved_bases():
        assert "came with the code" in rendered(tmp_path, card_for(table.saved_bases()[0]))
