"""What `pip install` of the built wheel gives: everything that a checkout has, from any folder."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from helpers.tiny_notebooks import write_materials
from lpr_lab.runs.environment import CHECKOUT

PLACES = {"lpr_lab/": "lpr_lab/", "notebooks/": "lpr_lab/notebooks/", "runs/examples/": "lpr_lab/examples/"}
DOCUMENTS = {"docs/concepts.md": "lpr_lab/docs/concepts.md", "docs/glossary.md": "lpr_lab/docs/glossary.md"}
SMALL = {"original": ["en"], "expanded": ["el"], "stage1_tokens": 2048, "stage2_tokens": 2048}
SMALL |= {"eval_tokens_per_language": 512, "precision": "fp32"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_every_module_notebook_parameters_style_and_script(wheel):
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a clone, so nothing says what belongs to it")
    files = [name for name in listed.stdout.decode().split("\0") if name and (CHECKOUT / name).is_file()]
    expected = {
        place + name.removeprefix(folder)
        for folder, place in PLACES.items()
        for name in files
        if name.startswith(folder)
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected | set(DOCUMENTS.values())
    for ending in (".py", ".css", ".js", ".html.j2", ".ipynb", ".gpu.yaml"):
        assert any(name.endswith(ending) for name in found)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel in it, and all that this one has but this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--disable-pip-version-check", str(wheel)], check=True)
    # A folder that a .pth file names is searched, but its own .pth files, such as that of a checkout, are not read.
    ours = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(ours, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


class Shell:
    """A person's shell in an empty folder, with nothing of lpr_lab's in its environment."""

    def __init__(self, installed: Path, folder: Path):
        ours = ("PYTHONPATH", "LPR_LAB_RUNS", "LPR_LAB_CACHE")
        self.environ = {name: value for name, value in os.environ.items() if name not in ours}
        self.environ |= {"HOME": str(folder / "home"), "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        self.bin = installed / "bin"
        self.folder = folder / "here"
        for path in (self.folder, folder / "home"):
            path.mkdir()

    def call(self, program: str, *arguments: object, **environ: str) -> str:
        command = [str(self.bin / program), *map(str, arguments)]
        options = {"cwd": self.folder, "env": self.environ | environ, "capture_output": True, "text": True}
        done = subprocess.run(command, timeout=300, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [str(self.bin / "lpr-lab"), *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environ)


@pytest.fixture
def shell(installed, tmp_path) -> Shell:
    return Shell(installed, tmp_path)


@pytest.mark.slow
def test_notebooks_parameters_and_examples_are_found_by_name_without_a_checkout(shell):
    where = Path(shell.call("python", "-c", "import lpr_lab; print(lpr_lab.__file__)").strip())
    assert where.is_relative_to(shell.bin.parent)
    planned = json.loads(
        shell.call("lpr-lab", "run", "00_quickstart", "-f", "00_quickstart.gpu", "--dry-run", "--json")
    )
    assert planned["recipe"]
    shell.call("lpr-lab", "sweep", "00_quickstart", "-g", "seed=0,1", "--dry-run")
    offers = {"_LPR_LAB_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    offered = shell.call("lpr-lab", COMP_WORDS="lpr-lab run 0", **offers).split()
    assert {"00_quickstart", "09_ablation_sweep"} <= set(offered)
    (example,) = (where.parent / "examples").iterdir()
    shell.call("lpr-lab", "report", example.name, "-o", "report.html", "--runs-dir", where.parent)


@pytest.mark.slow
def test_the_quickstart_runs_by_name_and_the_app_shows_it_without_a_checkout(
    shell, tiny_model, tiny_tokenizer, sentences, tmp_path
):
    materials = write_materials(tmp_path, tiny_model(), tiny_tokenizer, sentences, ("en", "el"), 12)
    (shell.folder / "small.json").write_text(json.dumps(SMALL | materials))
    result = json.loads(shell.call("lpr-lab", "run", "00_quickstart", "-f", "small.json", "--json"))
    run = shell.folder / "runs" / result["id"]
    assert result["state"] == "finished" and (run / "notebook.ipynb").is_file()
    assert json.loads((run / "env.json").read_text())["git"] is None
    again = json.loads(shell.call("lpr-lab", "demo", "--no-app", "-f", "small.json", "--json"))
    assert again["id"] == result["id"] and again["how"] == "reused"
    shell.call("lpr-lab", "report", result["id"], "-o", "report.html")
    assert "lpr-lab run 00_quickstart" in (shell.folder / "report.html").read_text()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    app = shell.start("app", "--no-browser", "--port", port)
    try:
        assert "lpr_lab" in fetched(app, f"http://127.0.0.1:{port}/")
        assert "router" in fetched(app, f"http://127.0.0.1:{port}/concepts")
    finally:
        app.terminate()
        app.wait(timeout=30)


def fetched(app: subprocess.Popen, address: str) -> str:
    """Return a page as soon as the app answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            assert app.poll() is None and time.monotonic() < deadline, "the app does not answer"
            time.sleep(0.2)
