import re

import numpy as np
import pandas as pd
import pytest

from helpers.plain_runs import make
from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs.formats import read_table, write_table
from lpr_lab.storage import write_json, write_text


def test_metrics_come_back_as_a_table(tmp_path):
    run = make(tmp_path)
    assert run.metrics.read().empty and "value" in run.metrics.read()
    run.metrics.log({"step": 1, "tokens": 1024, "t": 2.5, "loss": 3.25, "balance": np.float32(1)}, stage="expand")
    run.metrics.log({"step": 2, "tokens": 2048, "t": 5.0, "loss": float("nan")}, stage="expand", lang="no")
    table = run.metrics.read()
    assert list(table["name"]) == ["loss", "balance", "loss"]
    assert table["value"].isna().tolist() == [False, False, True]
    assert table["lang"].iloc[2] == "no"


def test_a_resumed_stage_moves_the_numbers_it_will_repeat_aside(tmp_path):
    run = make(tmp_path)
    for step in range(1, 6):
        run.metrics.log({"step": step, "loss": step}, stage="expand")
    run.metrics.log({"step": 9, "loss": 9}, stage="review")
    assert run.metrics.truncate("expand", 3) == 2
    table = run.metrics.read()
    assert list(zip(table["stage"], table["step"], strict=True)) == [
        ("expand", 1),
        ("expand", 2),
        ("expand", 3),
        ("review", 9),
    ]
    orphans = list(run.path.glob("metrics.orphan-*.jsonl"))
    assert len(orphans) == 1 and len(orphans[0].read_text().splitlines()) == 2
    assert run.metrics.truncate("expand", 3) == 0


@pytest.mark.parametrize("tail", [b'{"step": 2, "na', b"\0" * 100, b'{"step": 2\0\0'])
def test_a_line_cut_by_a_kill_is_not_read_and_is_dropped_before_appending(tmp_path, tail):
    run = make(tmp_path)
    run.metrics.log({"step": 1, "loss": 1}, stage="expand")
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    assert len(run.metrics.read()) == 1
    run.start()
    run.metrics.log({"step": 2, "loss": 2}, stage="expand")
    assert list(run.metrics.read()["step"]) == [1, 2]
    run.stop("interrupted")


def test_tables_keep_codes_and_hashes_as_text_and_numbers_as_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "language": ["no", "nan", "el"],
            "test_set": ["1234567890123456", "12e4567890123456", "0000000000000000"],
            "bits_per_byte": [1.5, np.nan, 0.1 + 0.2],
            "n_documents": [3, 4, 5],
            "remark": ['a "quoted", word', "two\nlines", ""],
        }
    )
    run = make(tmp_path)
    run.tables.write("retention", table)
    back = run.tables.read("retention")
    assert back is not None
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert run.tables.names() == ("retention",)
    assert run.tables.read("change") is None
    run.tables.write("empty", table.iloc[:0])
    empty = run.tables.read("empty")
    assert empty is not None and list(empty.columns) == list(table.columns)


@pytest.mark.parametrize("numbers", [(None, 1.5), (1.5, None), (None, None), (2.0, 1.5)])
@pytest.mark.parametrize("texts", [None, ("el", "007"), ("", "nan")])
def test_a_column_of_numbers_stays_one_wherever_a_number_is_missing(tmp_path, numbers, texts):
    table = pd.DataFrame(({} if texts is None else {"text": texts}) | {"number": pd.Series(numbers, dtype=float)})
    write_table(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table, check_exact=True)
    write_table(tmp_path / "table.csv", table.astype({"number": object}))  # as records with None make it
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table, check_exact=True)


def test_a_table_that_is_no_csv_is_named(tmp_path):
    run = make(tmp_path)
    (run.path / "tables").mkdir()
    (run.path / "tables" / "x.csv").write_bytes(b'"a","b"\n1,2,3\n4,5,6,7\n')
    with pytest.raises(DamagedError, match=r"x\.csv .*table"):
        run.tables.read("x")


def a_trace(num_tokens: int = 4) -> RoutingTrace:
    weights = np.random.default_rng(0).dirichlet([1, 1], size=(3, num_tokens))
    return RoutingTrace(
        text="Γεια",
        language="el",
        token_ids=list(range(num_tokens)),
        token_bytes=[None, *(bytes([0xCE, 0x93 + index]) for index in range(num_tokens - 1))],
        layers=np.array([0, 5, 29]),
        num_experts=np.array([2, 3, 2]),
        expert_ids=np.tile(np.array([0, 1]), (3, num_tokens, 1)),
        expert_weights=weights,
        original_weight=weights[..., 0],
        log_prob=np.array([np.nan, *[-1.5] * (num_tokens - 1)]),
        model={"base": "smollm2-135m", "top_k": 2},
    )


def test_a_trace_comes_back_as_it_was_written(tmp_path):
    run, trace = make(tmp_path), a_trace()
    run.traces.write("el", trace)
    back = run.traces.read("el")
    assert run.traces.names() == ("el",)
    assert (back.text, back.language, back.token_bytes, back.model) == ("Γεια", "el", trace.token_bytes, trace.model)
    np.testing.assert_array_equal(back.expert_ids, trace.expert_ids)
    np.testing.assert_allclose(back.expert_weights, trace.expert_weights, atol=5e-4)
    assert trace.log_prob is not None and back.log_prob is not None
    np.testing.assert_allclose(back.log_prob, trace.log_prob, rtol=1e-6)
    assert back.base_log_prob is None
    np.testing.assert_allclose(back.load(), trace.load())


def test_a_missing_or_damaged_trace_is_named(tmp_path):
    run = make(tmp_path)
    with pytest.raises(MissingError, match=r"trace 'el'.* none"):
        run.traces.read("el")
    run.traces.write("el", a_trace())
    (run.path / "traces" / "el.npz").write_bytes(b"not a zip")
    with pytest.raises(DamagedError, match="el is damaged"):
        run.traces.read("el")
    run.traces.write("el", a_trace())
    write_text(run.path / "traces" / "el.tokens.jsonl", '{"i": 0, "id": 0, "bytes": null}\n')
    with pytest.raises(DamagedError, match="differ in length"):
        run.traces.read("el")
    (run.path / "traces" / "el.npz").unlink()
    with pytest.raises(MissingError, match=r"el\.npz is missing"):
        run.traces.read("el")


def test_figures_and_generations_come_back(tmp_path):
    run = make(tmp_path)
    run.figures.write("load", '{"data": [], "layout": {"title": "φ"}}')
    run.figures.write("change", {"data": []})
    assert run.figures.read() == {"change": {"data": []}, "load": {"data": [], "layout": {"title": "φ"}}}
    run.generations.append({"prompt": "Γεια", "base": "x", "expanded": "y"})
    run.generations.append({"prompt": "2"})
    assert [record["prompt"] for record in run.generations.read()] == ["Γεια", "2"]
    assert run.generations.read("other") == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a\n"])
def test_no_name_leads_out_of_the_run(tmp_path, name):
    run = make(tmp_path)
    for call in (
        lambda: run.tables.write(name, pd.DataFrame()),
        lambda: run.tables.read(name),
        lambda: run.traces.write(name, a_trace()),
        lambda: run.traces.read(name),
        lambda: run.figures.write(name, {}),
        lambda: run.generations.append({}, name),
        lambda: run.paths.stage(name),
    ):
        with pytest.raises(UsageError, match=rf"{re.escape(repr(name))} .*no name"):
            call()


def test_a_checkpoint_counts_only_when_sealed(tmp_path):
    run = make(tmp_path)
    assert not run.paths.has_checkpoint
    run.paths.checkpoint.mkdir()
    assert not run.paths.has_checkpoint
    write_json(run.paths.checkpoint / "MANIFEST.json", {"files": {}})
    assert run.paths.has_checkpoint
    assert run.paths.stage("expand") == run.path / "stages" / "expand"


def test_a_table_that_was_read_and_changed_by_its_reader_reads_as_it_is_and_as_it_becomes(tmp_path):
    run = make(tmp_path)
    run.tables.write("x", pd.DataFrame({"step": [1, 2]}))
    mine = run.tables.read("x")
    mine["step"] = 0
    mine.loc[0, "step"] = 7
    mine["other"] = 3
    assert run.tables.read("x").to_dict("list") == {"step": [1, 2]}
    run.tables.write("x", pd.DataFrame({"step": [3, 4]}))
    assert list(run.tables.read("x")["step"]) == [3, 4]
