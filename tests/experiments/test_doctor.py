"""What the doctor finds on machines that lack something, played by small programs in the place of the real ones."""

import os
from pathlib import Path

import pytest

from lpr_lab import processors
from lpr_lab.experiments import doctor
from lpr_lab.runs import environment


@pytest.fixture
def finding(tmp_path, monkeypatch):
    """Return a function that examines and picks one finding; `programs` come before those of this machine."""

    def find(name: str, **programs: str) -> doctor.Finding:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for program, script in programs.items():
            path = folder / program.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        (found,) = (one for one in doctor.examine(tmp_path / "runs", 7999) if one.name == name)
        assert found.state == "ok" or found.next_step
        return found

    return find


def test_packages_are_held_against_what_is_declared(finding, monkeypatch):
    assert finding("packages").state == "ok"
    monkeypatch.setattr(environment, "requirements", lambda: ["numpy>=99,<100", "no-such-package>=1", "typer"])
    found = finding("packages")
    assert found.state == "fail" and "make setup" in found.next_step
    assert ", needed <100,>=99" in found.detail and "no-such-package is missing, needed >=1" in found.detail
    assert "typer" not in found.detail


def test_a_requirement_of_another_system_is_not_missed(finding, monkeypatch):
    monkeypatch.setattr(environment, "requirements", lambda: ["pywin32; sys_platform == 'amiga'"])
    assert finding("packages").state == "ok"


def test_what_is_declared_is_read_from_the_checkout_and_without_one_from_what_is_installed(monkeypatch, tmp_path):
    declared = environment.requirements()
    assert any(line.startswith("torch==") for line in declared) and not any("pytest" in line for line in declared)
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    installed = environment.requirements()
    assert any(line.startswith("torch==") for line in installed) and not any("pytest" in line for line in installed)


def test_plotly_and_gradio_must_draw_with_one_plotly_js(finding, monkeypatch):
    found = finding("gradio with plotly")
    assert found.state == "ok" and "plotly.js 3." in found.detail  # read from what both carry
    monkeypatch.setattr(doctor, "_plotly_js", {"gradio": "3.3.1", "plotly": "4.1.1"}.get)
    assert finding("gradio with plotly").state == "fail"


def test_scripts_without_a_font_are_named(finding):
    found = finding("fonts", fc_list='[ "$1" = ":charset=3b1" ] && echo DejaVu Sans; exit 0')
    assert found.state == "warn"
    assert found.detail == "none for Arabic, Bengali, Devanagari, Thai, Han"


@pytest.mark.slow
def test_a_gpu_that_torch_cannot_use_is_a_warning(finding):
    found = finding("gpu", nvidia_smi="echo 'NVIDIA H100, 81559 MiB'")
    assert found.state in ("ok", "warn") and "H100, 81559 MiB" in found.detail
    broken = finding("gpu", nvidia_smi="echo failed; exit 9")
    assert broken.state == "warn" and "nvidia-smi" in broken.next_step


def test_a_browser_that_is_named_but_not_there_is_a_warning(finding, monkeypatch, tmp_path):
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nowhere"))
    found = finding("chromium")
    assert found.state == "warn" and str(tmp_path / "nowhere") in found.detail


def test_the_browser_that_takes_least_is_driven_unless_another_is_named(monkeypatch, tmp_path):
    for name in ("chromium", "chromium-headless-shell", "other"):
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert doctor.find_browser() == str(tmp_path / "chromium-headless-shell")
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "other"))
    assert doctor.find_browser() == str(tmp_path / "other")
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nowhere"))
    assert doctor.find_browser() is None


def test_a_look_that_fails_says_so_and_the_others_go_on(finding, monkeypatch):
    def broken() -> doctor.Finding:
        raise OSError("no such thing")

    broken.__name__ = "_memory"
    monkeypatch.setattr(doctor, "_memory", broken)
    assert "no such thing" in finding("memory").detail
    assert finding("port 7999").name == "port 7999"


def test_the_folder_of_runs_may_not_be_there_yet(finding, tmp_path):
    assert finding("runs folder").state == "ok" and not Path(tmp_path / "runs").exists()


def test_the_processor_is_named_with_the_instructions_that_kernels_are_chosen_by(finding, monkeypatch):
    has = {"avx2": True, "avx512_bf16": True, "amx_bf16": False}
    monkeypatch.setattr(processors, "processor_flags", lambda: has)
    monkeypatch.setattr(processors, "bf16_is_quicker", lambda *flags: flags == (True, False))
    found = finding("processor")
    assert "avx2, avx512_bf16: bf16 is quicker" in found.detail and "amx_bf16" not in found.detail
    monkeypatch.setattr(processors, "processor_flags", dict)
    assert processors.processor_name() in finding("processor").detail
