"""lm-evaluation-harness on our runs, from task files, without a network: its numbers are ours."""

import json
import math

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra eval")

from helpers import plain_runs
from helpers.harness_tasks import CHOICES, write_choice, write_continuation, write_texts
from helpers.small_expansion import make_expansion
from lpr_lab.errors import MissingError, UnsupportedModelError, UsageError
from lpr_lab.experiments.harness.model import ExpansionLM, find_model, load_side
from lpr_lab.experiments.harness.run import TABLE, evaluate, read_arguments
from lpr_lab.experiments.harness.tasks import find_tasks, load_tasks, without_fetching
from lpr_lab.measure.bits import document_nats
from lpr_lab.model.formats.export import export
from lpr_lab.model.stages import use_stage
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.model_ref import BASE, analysed_run
from lpr_lab.text.corpus import Document
from lpr_lab.text.packing import pack

pytestmark = pytest.mark.slow

TOKENS = 8


@pytest.fixture(scope="module")
def texts(sentences):
    return [text for code in ("en", "el", "hu") for text in sentences[code]]


@pytest.fixture(scope="module")
def made(tiny_model, tiny_tokenizer, tmp_path_factory):
    return make_expansion(tmp_path_factory.mktemp("harness"), tiny_model("llama"), tiny_tokenizer)


@pytest.fixture(scope="module")
def root(made):
    return made[0].path.parent


def scores(run) -> dict[tuple[str, str], float]:
    table = run.tables.read(TABLE)
    return {(row.task, row.metric): row.value for row in table.itertuples()}


def bits_of(model, tokenizer, texts) -> float:
    """Return bits per byte by our own evaluation, each text in a block of its own."""
    nats = 0.0
    for text in texts:
        blocks = pack([Document("0", "en", text, "test")], tokenizer, 128, languages=["en"])
        nats += float(document_nats(model, blocks, precision="fp32").sum())
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def likelihoods(model, tokenizer, context: str, answers: list[str]) -> list[float]:
    """Return the log-likelihood of each answer after a context, one plain forward pass each."""
    found = []
    for answer in answers:
        before, whole = (tokenizer(text)["input_ids"] for text in (context, f"{context} {answer}"))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[i - 1, whole[i]]) for i in range(len(before), len(whole))))
    return found


@pytest.mark.parametrize("stage", ["", "G1 expand", BASE])
def test_bits_per_byte_of_whole_texts_are_those_of_our_own_evaluation(
    made, root, tmp_path, tiny_tokenizer, texts, stage
):
    subject, model = made
    task = write_texts(tmp_path, texts)
    arguments = ["--tasks", str(task), "--model_args", f"run={subject.id},stage={stage}", "--batch_size", "4"]
    run = evaluate(arguments, root)
    with use_stage(model, None if stage == BASE else stage or "G1 review"):
        expected = bits_of(model, tiny_tokenizer, texts)
    found = scores(run)
    assert found["our_texts", "bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert found["our_texts", "byte_perplexity"] == pytest.approx(2**expected, rel=1e-5)


def test_the_answer_of_a_choice_is_the_likelier_one_by_our_own_logits(made, root, tmp_path, tiny_tokenizer):
    subject, model = made
    run = evaluate(["--tasks", str(write_choice(tmp_path)), "--model_args", f"run={subject.id}"], root)
    right, right_per_byte = [], []
    for row in CHOICES:
        values = np.array(likelihoods(model, tiny_tokenizer, row["question"], row["choices"]))
        right.append(values.argmax() == row["answer"])
        right_per_byte.append((values / [len(text) for text in row["choices"]]).argmax() == row["answer"])
    found = scores(run)
    assert found["our_choice", "acc"] == np.mean(right)
    assert found["our_choice", "acc_norm"] == np.mean(right_per_byte)


def test_continuations_are_greedy_and_those_of_the_model(made, root, tmp_path, tiny_tokenizer, texts):
    subject, model = made
    asked = []
    for text in texts[:6:2]:
        ids = tiny_tokenizer(text[:30].rstrip(), return_tensors="pt")
        written = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
        asked.append(
            (
                text[:30].rstrip(),
                tiny_tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True),
            )
        )
    task = write_continuation(tmp_path, asked, TOKENS)
    together = evaluate(["--tasks", str(task), "--model_args", f"run={subject.id}", "--batch_size", "3"], root)
    assert scores(together)["our_continuation", "exact_match"] == 1.0, "with padding on the left too"


def test_a_plain_hf_model_of_the_exported_folder_has_the_same_numbers(made, root, tmp_path, tiny_tokenizer, texts):
    subject, model = made
    folder = export(model, tmp_path / "exported", "mixtral", tokenizer=tiny_tokenizer)
    tasks = f"{write_texts(tmp_path, texts)},{write_choice(tmp_path)}"
    ours = evaluate(["--tasks", tasks, "--model_args", f"run={subject.id}"], root)
    args = f"pretrained={folder},dtype=float32"
    theirs = evaluate(["--tasks", tasks, "--model", "hf", "--model_args", args, "--device", "cpu"], root)
    found, expected = scores(ours), scores(theirs)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key
    assert theirs.parents == () and ours.parents == (subject.id,)


def test_the_results_are_a_run_that_analyses_the_other_and_keeps_what_the_harness_wrote(made, root, tmp_path):
    subject, _ = made
    task = write_choice(tmp_path)
    arguments = ["--tasks", str(task), "--model_args", "run=latest", "--limit", "2", "--log_samples"]
    run = evaluate(arguments, root)
    assert run.kind == "harness" and run.status.state == "finished" and analysed_run(run) == subject.id
    assert run.config["tasks"] == [str(task)] and run.config["arguments"] == arguments
    table = run.tables.read(TABLE)
    assert list(table["samples"].unique()) == [2] and table["higher_is_better"].all()
    assert run.results["scores"][0]["task"] == "our_choice"
    (aggregated,) = (run.path / "harness").glob("results_*.json")
    assert json.loads(aggregated.read_text(encoding="utf-8"))["results"]["our_choice"]
    assert list((run.path / "harness").glob("samples_*.jsonl"))


def test_what_cannot_be_done_is_refused_before_a_run_is_begun(made, root, tmp_path, monkeypatch):
    subject, _ = made
    unfinished = plain_runs.make(root)
    task = str(write_choice(tmp_path))
    fetched = tmp_path / "fetched.yaml"
    fetched.write_text(
        "task: fetched\ndataset_path: someone/something\noutput_type: multiple_choice\n", encoding="utf-8"
    )
    before = len(list_runs(root))
    model = f"run={subject.id}"
    refusals = [
        (["--tasks", task], UsageError, "run=ID"),
        (["--tasks", task, "--model_args", f"run={subject.id}x"], MissingError, subject.id),
        (["--tasks", task, "--model_args", f"run={unfinished.id}"], UsageError, "finished"),
        (["--tasks", task, "--model_args", f"{model},stage=G1 revew"], UsageError, "G1 review"),
        (["--tasks", str(tmp_path / "none.yaml"), "--model_args", model], MissingError, "none.yaml"),
        (["--model_args", model], UsageError, "task"),
        (["--tasks", str(fetched), "--model_args", model], MissingError, "--fetch"),
        (["--tasks", task, "--include_path", str(tmp_path / "no"), "--model_args", model], MissingError, "no"),
    ]
    for arguments, error, term in refusals:
        with pytest.raises(error, match=term):
            evaluate(arguments, root)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        evaluate(["--tasks", task, "--model_args", model], root)
    assert len(list_runs(root)) == before
    with pytest.raises(SystemExit):
        read_arguments(["--tasks", task, "--no_such_option", "3"])


def test_a_name_that_no_task_has_is_answered_with_the_closest(tmp_path):
    write_choice(tmp_path)
    with without_fetching(), pytest.raises(UsageError, match="our_choice"):
        find_tasks(["our_chioce"], str(tmp_path))


def test_own_tasks_are_known_by_name_and_as_a_folder(tmp_path, texts):
    write_choice(tmp_path)
    write_texts(tmp_path, texts)
    for asked, include in ((["our_choice", "our_texts"], str(tmp_path)), ([str(tmp_path)], None)):
        manager, names = find_tasks(asked, include)
        assert load_tasks(manager, names) == ["our_choice", "our_texts"]
        assert len(manager.all_tasks) < 10, "the harness's own thousands are left out"


def test_arguments_that_would_be_ignored_are_refused(made, root):
    subject, _ = made
    for name in ("parallelize", "peft", "revision", "trust_remote_code", "load_in_4bit"):
        with pytest.raises(UsageError, match=name):
            ExpansionLM(run=subject.id, runs_dir=root, **{name: True})
    with pytest.raises(UsageError, match="float16"):
        ExpansionLM(run=subject.id, runs_dir=root, dtype="float16")


def test_classifiers_that_see_the_answer_are_refused(tiny_model, tiny_tokenizer, tmp_path):
    pooled = {"classifiers": (0,), "classifier_input": "sequence"}
    subject, _ = make_expansion(tmp_path, tiny_model("llama"), tiny_tokenizer, **pooled)
    with pytest.raises(UnsupportedModelError, match="pool"):
        load_side(find_model(subject.id, "", subject.path.parent))
    model, _ = load_side(find_model(subject.id, "G1 expand", subject.path.parent))
    assert model is not None
