"""The app is built without a model library, offered on this machine only, and keeps to itself."""

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lpr_lab.dashboard import build, serve
from lpr_lab.errors import UsageError


def test_importing_the_dashboard_is_quick_and_brings_neither_torch_nor_gradio():
    code = "import time; t = time.process_time(); import lpr_lab.dashboard; print(time.process_time() - t)\n"
    code += "import sys; print('torch' in sys.modules, 'gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    assert float(seconds) < 2 and modules == "False False"


@pytest.mark.slow
def test_building_the_pages_needs_no_torch_and_no_runs_and_writes_no_type_stubs_of_gradio(tmp_path):
    code = """
import sys
read = []
sys.addaudithook(lambda event, given: read.append(str(given[0])) if event == "open" else None)
from lpr_lab.dashboard import build
build({folder!r})
print(any(name in sys.modules for name in ("torch", "transformers", "peft")))
import gradio
print(len([path for path in read if path.endswith(".pyi")]), hasattr(gradio.Textbox, "change"), len(sys.meta_path))
import lpr_lab.dashboard.server.quick_gradio as quick
quick.skip_type_stubs()
print(len(sys.meta_path))
""".format(folder=str(tmp_path / "absent"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needs_torch, stubs, has_events, finders, finders_after = done.stdout.split()
    assert needs_torch == "False"
    assert stubs == "0" and has_events == "True"
    assert finders == finders_after


def test_building_leaves_no_file_behind(tmp_path):
    import lpr_lab.dashboard

    before = set(Path(lpr_lab.dashboard.__file__).parent.iterdir())
    build(tmp_path)
    assert {path for path in Path(lpr_lab.dashboard.__file__).parent.iterdir() if path.suffix != ""} <= before


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "example.org"])
def test_serving_beyond_this_machine_is_refused(tmp_path, host):
    with pytest.raises(UsageError, match="sign-in"):
        serve(tmp_path, host=host)


@pytest.mark.slow
def test_beyond_this_machine_the_printed_address_holds_a_token_and_nothing_is_served_without(tmp_path):
    script = Path(__file__).parents[2] / "app.py"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, str(script), "--host", "0.0.0.0", "--port", str(port), "--no-browser"]
    with subprocess.Popen(
        [*line, "--runs-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=script.parent
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            address = re.search(rf"http://\S+:{port}/\?token=\S{{40,}}", said)
            assert address, said
            base = f"http://127.0.0.1:{port}"
            for path in ("/", "/routing", "/gradio_api/info", "/config", "/assets/x.js"):
                assert fetch(base + path)[0] == 401
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            token = address[0].split("?")[1]
            with opener.open(f"{base}/routing?{token}", timeout=10) as answer:
                assert answer.status == 200 and "token" not in answer.url
            with opener.open(f"{base}/gradio_api/info", timeout=10) as answer:
                assert "/list_runs" in answer.read().decode()
        finally:
            server.terminate()


def test_models_wait_for_one_another_and_files_do_not(built):
    by_queue = {fn.queue: fn for fn in built.fns.values()}
    assert set(by_queue) == {True, False}
    for fn in built.fns.values():
        if fn.queue and fn.fn is not None:
            # They wait in our own line, which says how many come before; gradio lets all of them in.
            assert fn.concurrency_limit is None and (fn.fn.__name__ == "answer" or fn.fn.__wrapped__)


@pytest.mark.slow
def test_only_the_named_endpoints_are_public(built):
    public = {fn.api_name for fn in built.fns.values() if fn.api_visibility != "private"}
    assert public == {"list_runs", "trace_text", "expert_load", "retention", "generate_pair", "plan"}


@pytest.mark.slow
def test_a_visit_describes_no_component_anew_and_visitors_share_nothing(tmp_path, monkeypatch):
    from gradio.blocks import BlocksConfig
    from gradio.state_holder import SessionState

    demo, calls, describe = build(tmp_path), [], BlocksConfig.config_for_block

    def counted(_id, *rest):
        calls.append(_id)
        return describe(_id, *rest)

    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(counted))
    plain = {key: describe(key, [], block) for key, block in demo.default_config.blocks.items() if key in demo.blocks}
    first = SessionState(demo)
    calls.clear()
    second = SessionState(demo)
    assert not calls and first.config_values == second.config_values == plain
    key = next(key for key, config in first.config_values.items() if "value" in config["props"])
    first.config_values[key]["props"]["value"] = "mine"
    assert second.config_values[key] == SessionState(demo).config_values[key] == plain[key]


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def fetch(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, lower(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, lower(error.headers), error.read().decode()


@pytest.mark.slow
def test_the_server_answers_this_machine_and_refuses_a_rebound_name(address):
    started = time.monotonic()
    status, headers, text = fetch(address)
    assert status == 200 and time.monotonic() - started < 5
    assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "lprTokenStrip" in text
    assert fetch(address, Host="evil.example")[0] == 421
    assert fetch(f"{address}/gradio_api/file=/etc/passwd")[0] in (403, 404)


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence(address, tmp_path):
    port = int(address.rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=f"{port} .*in use"):
        serve(tmp_path, port=port, open_browser=False, block=False)


def test_a_visitors_choices_are_answered_in_order_and_those_of_others_meanwhile():
    import asyncio
    import time
    from types import SimpleNamespace

    import gradio as gr

    from lpr_lab.dashboard.shell import in_order

    answered = []

    def choose(name: str, seconds: float, request: gr.Request) -> None:
        time.sleep(seconds)
        answered.append(name)

    async def visit() -> None:
        handle = in_order(choose)
        mine, other = (gr.Request(SimpleNamespace(), session_hash=name) for name in ("mine", "other"))
        asked = [("first", 0.2, mine), ("second", 0.0, mine), ("theirs", 0.0, other), ("third", 0.0, mine)]
        await asyncio.gather(*(handle(*one) for one in asked))

    asyncio.run(visit())
    assert answered == ["theirs", "first", "second", "third"]


def test_one_answer_draws_all_that_a_choice_changes(runs_dir):
    """Of two answers to one choice one can arrive before, the other after that to the next: half of a page for each."""
    found = {}
    for one in build(runs_dir).config["dependencies"]:
        if one["trigger_mode"] == "multiple" and one["outputs"]:
            for target in (target for target in one["targets"] if target[0] is not None):  # what follows names none
                found.setdefault(tuple(target), []).append(one["outputs"])
    assert len(found) > 10
    assert {target: len(answers) for target, answers in found.items() if len(answers) > 1} == {}
