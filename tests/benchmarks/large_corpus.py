"""A corpus larger than memory is read, divided and tokenised: MB/s, peak memory, and what is done again after a kill.

    .venv/bin/python tests/benchmarks/large_corpus.py --megabytes 2000 --folder /tmp/large-corpus

Writes text of made-up words in two languages, works on it in a process of its own that is killed twice with all its
workers, once while it reads and once while it tokenises, and starts it again until it is through. Memory is that of the
process and its workers together, looked at once a second: PSS, which counts a page that several share once; the part of
it that is no file's (anonymous), which the system cannot drop when it needs room; and USS, what would be free if they
ended. What such looks may miss is bounded by the sum of what the kernel noted as the most that each process ever held
(RSS), pages of libraries counted for each. Linux only, for it reads `/proc`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

BLOCK_TOKENS = 512
LANGUAGES = ("el", "en")
LETTERS = {"el": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώ", "en": "etaoinshrdlucmfwypvbgkqjxz"}


def write_text(folder: Path, megabytes: int) -> int:
    """Write JSON Lines of about so many megabytes, of which a tenth repeats itself; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = min(megabytes * 250_000, 100_000_000)
    total, number = 0, 0
    while total < megabytes * 1_000_000:
        code = LANGUAGES[number % 2]
        path = folder / f"{code}-{number:03}.jsonl"
        wanted = min(per_file, megabytes * 1_000_000 - total)
        if not path.exists():
            aside = path.with_suffix(".part")
            _write_file(aside, code, number, wanted)
            aside.rename(path)
        total, number = total + path.stat().st_size, number + 1
    return total


def _write_file(path: Path, code: str, number: int, wanted: int) -> None:
    words_of = np.random.default_rng([1, LANGUAGES.index(code)])
    letters = [*LETTERS[code]]
    words = ["".join(words_of.choice(letters, size=size)) for size in words_of.integers(2, 11, size=60_000)]
    generator = np.random.default_rng([2, number])
    known: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < wanted:
            drawn = np.minimum(generator.zipf(1.3, size=20_000) - 1, generator.integers(0, 60_000, size=20_000))
            stream = [words[i] for i in drawn.tolist()]
            place = 0
            for length in generator.integers(5, 60, size=400).tolist():
                lines = [
                    " ".join(stream[place : place + length]),
                    " ".join(stream[place + 5 : place + 5 + length // 2]),
                ]
                place += length
                if known and generator.random() < 0.1:
                    lines.insert(1, known[int(generator.integers(len(known)))])
                elif len(known) < 1000:
                    known.append(lines[0])
                file.write(json.dumps({"text": "\n".join(lines), "language": code}, ensure_ascii=False) + "\n")


def make_tokenizer(path: Path, text: Path) -> None:
    """Train a byte-level BPE tokenizer of 8,192 tokens on the beginning of the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    files = [next(text.glob(f"{code}-*.jsonl")) for code in LANGUAGES]
    sample = [line for file in files for _, line in zip(range(4000), file.open(encoding="utf-8"), strict=False)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator((json.loads(line)["text"] for line in sample), trainer)
    tokenizer.save(str(path))


def work(folder: Path, num_proc: int) -> None:
    """Make the corpus and all blocks; what a process of its own is started for. Prints its numbers as JSON."""
    from transformers import PreTrainedTokenizerFast

    import lpr_lab as lab
    from lpr_lab.text.draw import shuffled_documents
    from lpr_lab.text.shards.blocks import pack_documents
    from lpr_lab.text.shards.pool import Workers

    phases: dict[str, list[float]] = {}
    run = Workers.run

    def timed(self, function, tasks, *, label, **options):
        started = time.perf_counter()
        found = run(self, function, tasks, label=label, **options)
        phase = phases.setdefault(label.split(",")[0].split(" ")[0], [0.0, 0.0])
        phase[0] += time.perf_counter() - started
        phase[1] += len(tasks)
        return found

    Workers.run = timed  # type: ignore[method-assign]
    started = time.perf_counter()
    corpus = lab.load_corpus(str(folder / "text"), streaming=True, num_proc=num_proc)
    loaded = time.perf_counter() - started
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>")
    blocks = {}
    for code in LANGUAGES:
        documents = shuffled_documents(corpus, "train", code, seed=0)
        blocks[code] = pack_documents(documents, tokenizer, BLOCK_TOKENS, languages=[code])
    whole = time.perf_counter() - started
    generator = np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(2000):
        of = blocks[LANGUAGES[int(generator.integers(2))]]
        of[int(generator.integers(len(of)))]
    facts = {
        "loaded": loaded,
        "whole": whole,
        "phases": phases,
        "tokens": sum(one.num_tokens for one in blocks.values()),
        "documents": sum(one.num_documents for one in blocks.values()),
        "blocks_per_second": 2000 / (time.perf_counter() - started),
    }
    print(json.dumps(facts), flush=True)


def memory_of(process: psutil.Process) -> dict[str, float]:
    """Return what a process holds in MB, by kind."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: float(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
    of = {"PSS": ("Pss",), "anonymous": ("Pss_Anon",), "USS": ("Private_Clean", "Private_Dirty")}
    return {kind: sum(kilobytes[name] for name in names) * 1.024e-3 for kind, names in of.items()}


class Peaks:
    """The most that a process and all that it started have held together, by kind; and who held how much of it then."""

    def __init__(self) -> None:
        self.most: dict[str, float] = {}
        self.bounds: dict[int, float] = {}
        self.busy: dict[int, float] = {}
        self.shares: list[float] = []

    def look(self, pid: int) -> None:
        """Look once at a process and those that it started."""
        found = []
        with suppress(psutil.Error):
            main = psutil.Process(pid)
            for process in [main, *main.children(recursive=True)]:
                with suppress(OSError, IndexError, psutil.Error):
                    times = process.cpu_times()
                    self.busy[process.pid] = times.user + times.system
                    found.append(memory_of(process))
                    status = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1]
                    self.bounds[process.pid] = float(status.split()[0]) * 1.024e-3
        for kind in found[0] if found else ():
            total = sum(one[kind] for one in found)
            if kind == "PSS" and total > self.most.get(kind, 0.0):
                self.shares = [one[kind] for one in found]
            self.most[kind] = max(self.most.get(kind, 0.0), total)

    @property
    def seconds(self) -> float:
        """Seconds of processor time that all of them have worked."""
        return sum(self.busy.values())

    def __str__(self) -> str:
        shares = " + ".join(f"{share:.0f}" for share in self.shares)
        rest = ", ".join(f"{most:.0f} MB {kind}" for kind, most in self.most.items() if kind != "PSS")
        bound = f"at most {sum(self.bounds.values()):.0f} MB by the sum of each one's own peak"
        return f"{self.most['PSS']:.0f} MB PSS (first process and others: {shares}), {rest}, {bound}"


def watched(command: list[str], until: Callable[[], bool]) -> tuple[str | None, Peaks, float]:
    """Run a command in a session of its own, kill all of it once `until` says so; returns output, peaks and seconds."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    peaks = Peaks()
    while child.poll() is None:
        peaks.look(child.pid)
        if until():
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return None, peaks, time.perf_counter() - started
        time.sleep(1)
    output = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"the work ended with {child.returncode}")
    return output, peaks, time.perf_counter() - started


def main() -> None:
    """Write the text, work on it with two kills, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.folder, options.num_proc)
        return
    started = time.perf_counter()
    size = write_text(options.folder / "text", options.megabytes)
    make_tokenizer(options.folder / "tokenizer.json", options.folder / "text")
    print(f"text: {size / 1e6:.0f} MB, written in {time.perf_counter() - started:.0f} s", flush=True)
    cache = options.folder / "cache"
    os.environ["LPR_LAB_CACHE"] = str(cache)

    def finished(pattern: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in cache.glob(f"corpora/{pattern}/MANIFEST.json")}

    command = [sys.executable, __file__, "--work", "--folder", str(options.folder), "--num-proc", str(options.num_proc)]
    units, tokens = "*/documents/[0-9]*", "*/tokens/*/*/[0-9]*"  # not what is still being written
    third = max(size // 16_000_000 // 3, 1)
    seconds, busy, before = 0.0, 0.0, {}
    for pattern in (units, tokens, None):
        ends = (lambda: False) if pattern is None else (lambda p=pattern: len(finished(p)) >= third)
        output, peaks, took = watched(command, ends)
        seconds += took
        again = [path for path, stamp in before.items() if (finished(units) | finished(tokens)).get(path) != stamp]
        before = finished(units) | finished(tokens)
        busy += peaks.seconds
        state = "killed" if output is None else "through"
        print(
            f"{state} after {took:.0f} s, {peaks.seconds:.0f} s of processor time: peak of all processes "
            f"together {peaks}; "
            f"{len(before)} pieces finished, {len(again)} of those finished before were made again",
            flush=True,
        )
    assert output is not None
    facts = json.loads(output.splitlines()[-1])
    print(
        f"in all {seconds:.0f} s with both kills: {size / 1e6 / seconds:.2f} MB/s; {busy:.0f} s of processor time: "
        f"{size / 1e6 / busy:.2f} MB/s for each processor that is free; last session {facts['phases']}"
    )
    print(
        f"{facts['tokens']:,} tokens to train on in {facts['documents']:,} documents; "
        f"{facts['blocks_per_second']:.0f} blocks of {BLOCK_TOKENS} tokens a second, in random order"
    )


if __name__ == "__main__":
    main()
