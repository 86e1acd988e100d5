"""What every test gets: no network, no shared cache, the same seed, and small models built on the spot.

torch and transformers are imported inside fixtures only, so that tests of the torch-free parts stay quick and honest.
"""

import atexit
import copy
import functools
import importlib.metadata
import ipaddress
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Read once, when the libraries are imported; hence before any of them is.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "HF_HOME" not in os.environ:  # the workers of pytest-xdist and children of tests inherit it
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lpr-lab-tests-hf-")
    atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ.setdefault("OMP_NUM_THREADS", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # of its children too: other workers keep the other cores busy
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else a pool of processes is started for a few kernels
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    GRADIO_ANALYTICS_ENABLED="False",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every child process compiles all modules again

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, and children would inherit it: no test could interrupt them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from _pytest.doctest import DoctestModule

from helpers.shares import shared

sys.dont_write_bytecode = False  # else every worker rewrites all assertions again

# Several tests import nbformat, and jsonschema with it, which builds a grammar for seconds where it finds this package.
sys.modules.setdefault("rfc3987_syntax", None)

pytest_plugins = ["pytester"]
collect_ignore = ["benchmarks"]  # programs of their own: `make bench`

END_OF_TEXT = "<|endoftext|>"


QUICK_FAMILIES = ("llama", "gpt2", "gemma3")
"""With gated and plain feed-forward blocks, linear maps and convolutions, tied and untied embeddings."""


class DoctestsWhereThereAreAny:
    """Look for examples in docstrings only in files that have some; looking through all others takes seconds."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path):
        collectors = yield
        return [
            collector
            for collector in collectors
            if not isinstance(collector, DoctestModule) or b">>> " in file_path.read_bytes()
        ]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(DoctestsWhereThereAreAny())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Leave the other families of a matrix over model families to the slow tests; begin with what takes longest."""
    for item in items:
        family = getattr(getattr(item, "callspec", None), "params", {}).get("family")
        if family and family not in QUICK_FAMILIES:
            item.add_marker(pytest.mark.slow)
    result = yield
    items[:] = shared(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    return result


def pytest_report_header() -> str:
    names = ("torch", "transformers", "peft", "accelerate", "gradio", "plotly")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


# ---------------------------------------------------------------------------------------------------- isolation


@pytest.fixture(autouse=True)
def same_seed() -> None:
    """Seed what is loaded; a test that imports torch itself goes through `tiny_model`, which seeds again."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` takes milliseconds, for every backend
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(0)
        most = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
        if torch.get_num_threads() > most:
            torch.set_num_threads(most)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Hand nothing to the disk itself: no test can observe that it is there. A bad descriptor is refused as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory) -> Callable[[], Path]:
    """Return a function that gives an empty `runs` and `cache` in a folder: those of before where they stayed empty.

    Making and removing them takes longer than most tests, and `mktemp` reads the names of all folders that there are.
    """
    parent = tmp_path_factory.mktemp("homes")
    numbers, last = itertools.count(), []

    def empty_home() -> Path:
        if last and all(folder.is_dir() and not any(folder.iterdir()) for folder in last):
            return last[0].parent
        home = parent / str(next(numbers))
        last[:] = home / "runs", home / "cache"
        for folder in last:
            folder.mkdir(parents=True)
        return home

    return empty_home


@pytest.fixture(autouse=True)
def isolated_home(request, monkeypatch, homes):
    """Keep the user's settings and runs out of every test, and the user's cache out of all but those of the real model.

    What the code under test leaves in the environment (`--quiet` does) is gone afterwards.
    """
    before = set(os.environ)
    for name in [name for name in os.environ if name.startswith("LPR_LAB_")]:
        is_wanted = name.startswith("LPR_LAB_REQUIRE_") or request.node.get_closest_marker("real")
        if not is_wanted:
            monkeypatch.delenv(name)
    home = homes()
    for name in ["runs"] if request.node.get_closest_marker("real") else ["runs", "cache"]:
        monkeypatch.setenv(f"LPR_LAB_{name.upper()}", str(home / name))
    yield
    for name in [name for name in os.environ if name.startswith("LPR_LAB_") and name not in before]:
        del os.environ[name]


def _is_here(host: object) -> bool:
    """Say whether a host name or address is this machine."""
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def network_attempts(request, monkeypatch):
    """Refuse every connection that leaves this machine, and fail the test that tried, also when the code coped.

    Yields the list of hosts that were asked for; a test of the guard itself clears it. Child processes are reached
    through the environment: pip finds no index and anything that honours proxies finds a closed door.
    """
    attempts: list[str] = []
    if request.node.get_closest_marker("network") or request.node.get_closest_marker("real"):
        yield attempts
        return

    def refuse(host: object) -> None:
        attempts.append(str(host))
        raise ConnectionRefusedError(f"tests run without a network, and something asked for {host}")

    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            refuse(address[0])
        return connect(self, address)

    def guarded_connect_ex(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            refuse(address[0])
        return connect_ex(self, address)

    def guarded_getaddrinfo(host, *args, **kwargs):
        if not _is_here(host):
            refuse(host)
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    yield attempts
    if attempts:
        pytest.fail(f"this test tried to reach {', '.join(sorted(set(attempts)))}; tests run without a network")


# ------------------------------------------------------------------------------------------------- text and models


@pytest.fixture(scope="session")
def sentences() -> dict[str, list[str]]:
    """A few plain sentences per language, written for these tests: six scripts, two writing directions."""
    return {
        "en": [
            "The baker opens the shop before the sun is up.",
            "My grandmother keeps 14 jars of honey on the top shelf.",
            "When the tide goes out, children look for shells.",
            "A letter came this morning, but nobody has read it yet.",
            "The old clock in the station is always five minutes late.",
            "He planted three apple trees behind the school.",
        ],
        "es": [
            "La panadera abre la tienda antes de que salga el sol.",
            "Mi abuela guarda 14 frascos de miel en el estante más alto.",
            "Cuando baja la marea, los niños buscan conchas.",
            "Esta mañana llegó una carta, pero nadie la ha leído todavía.",
            "El viejo reloj de la estación siempre va cinco minutos tarde.",
            "¿Quién plantó tres manzanos detrás de la escuela?",
        ],
        "el": [
            "Ο φούρναρης ανοίγει το μαγαζί πριν βγει ο ήλιος.",
            "Η γιαγιά μου φυλάει 14 βάζα με μέλι στο πάνω ράφι.",
            "Όταν τραβιέται η θάλασσα, τα παιδιά ψάχνουν κοχύλια.",
            "Ένα γράμμα ήρθε σήμερα το πρωί, αλλά κανείς δεν το διάβασε ακόμη.",
            "Το παλιό ρολόι του σταθμού πάει πάντα πέντε λεπτά πίσω.",
            "Φύτεψε τρεις μηλιές πίσω από το σχολείο.",
        ],
        "hu": [
            "A pék már napkelte előtt kinyitja a boltot.",
            "Nagymamám 14 üveg mézet tart a legfelső polcon.",
            "Amikor visszahúzódik a víz, a gyerekek kagylót keresnek.",
            "Ma reggel jött egy levél, de még senki sem olvasta el.",
            "Az állomás régi órája mindig öt percet késik.",
            "Három almafát ültetett az iskola mögé.",
        ],
        "tr": [
            "Fırıncı, dükkânı güneş doğmadan açar.",
            "Büyükannem üst rafta 14 kavanoz bal saklıyor.",
            "Sular çekilince çocuklar deniz kabuğu arar.",
            "Bu sabah bir mektup geldi ama henüz kimse okumadı.",
            "İstasyondaki eski saat hep beş dakika geri kalır.",
            "Okulun arkasına üç elma ağacı dikti.",
        ],
        "zh": [
            "天还没亮,面包师就打开了店门。",
            "奶奶在最高的架子上放了14罐蜂蜜。",
            "退潮的时候,孩子们去找贝壳。",
            "今天早上来了一封信,可是还没有人看过。",
            "车站的旧钟总是慢五分钟。",
            "他在学校后面种了三棵苹果树。",
        ],
        "ar": [
            "يفتح الخبّاز الدكّان قبل شروق الشمس.",
            "تحتفظ جدّتي بأربعة عشر مرطبان عسل على الرفّ الأعلى.",
            "عندما ينحسر البحر يبحث الأطفال عن الأصداف.",
            "وصلت رسالة هذا الصباح، لكن لم يقرأها أحد بعد.",
            "ساعة المحطّة القديمة متأخّرة دائمًا خمس دقائق.",
            "غرس ثلاث شجرات تفّاح خلف المدرسة.",
        ],
        "bn": [
            "সূর্য ওঠার আগেই রুটিওয়ালা দোকান খোলে।",
            "আমার দাদি উপরের তাকে ১৪টি মধুর বয়াম রাখেন।",
            "ভাটার সময় বাচ্চারা ঝিনুক খোঁজে।",
            "আজ সকালে একটি চিঠি এসেছে, কিন্তু এখনও কেউ পড়েনি।",
            "স্টেশনের পুরোনো ঘড়িটা সবসময় পাঁচ মিনিট পিছিয়ে থাকে।",
            "সে স্কুলের পিছনে তিনটি আপেল গাছ লাগিয়েছে।",
        ],
        "hi": [
            "सूरज निकलने से पहले ही नानबाई दुकान खोल देता है।",
            "मेरी दादी ऊपर की ताक पर शहद के 14 मर्तबान रखती हैं।",
            "जब पानी उतरता है, बच्चे सीपियाँ ढूँढते हैं।",
            "आज सुबह एक चिट्ठी आई, पर अभी तक किसी ने नहीं पढ़ी।",
            "स्टेशन की पुरानी घड़ी हमेशा पाँच मिनट पीछे रहती है।",
            "उसने स्कूल के पीछे सेब के तीन पेड़ लगाए।",
        ],
        "ru": [
            "Пекарь открывает лавку ещё до восхода солнца.",
            "Бабушка держит 14 банок мёда на верхней полке.",
            "Когда вода отступает, дети ищут ракушки.",
            "Сегодня утром пришло письмо, но его ещё никто не прочёл.",
            "Старые часы на вокзале всегда отстают на пять минут.",
            "Он посадил за школой три яблони.",
        ],
        "th": [
            "คนทำขนมปังเปิดร้านก่อนพระอาทิตย์ขึ้น",
            "ยายเก็บน้ำผึ้ง 14 ขวดไว้บนชั้นบนสุด",
            "เวลาน้ำลง เด็กๆ ออกไปเก็บเปลือกหอย",
            "เช้านี้มีจดหมายมาถึง แต่ยังไม่มีใครอ่าน",
            "นาฬิกาเก่าที่สถานีเดินช้าไปห้านาทีเสมอ",
            "เขาปลูกต้นแอปเปิลสามต้นไว้หลังโรงเรียน",
        ],
    }


@pytest.fixture(scope="session")
def tiny_tokenizer(sentences):
    """A byte-level BPE of 400 entries: any text round-trips, and many characters are split over tokens.

    Its only special token is `<|endoftext|>` (end of text, padding and separator alike).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Not Thai: in it every character stays three tokens, which is the case that views have to draw.
    tokenizer.train_from_iterator((text for code in sentences if code != "th" for text in sentences[code]), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "smollm3",
    "gpt_neox",
    "gpt2",
)


def _tiny_config(family: str, num_layers: int, vocab_size: int):
    """The config of one family: width 32, 4 heads of 8, and whatever sets that family apart switched on."""
    import transformers as hf

    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    if family == "gpt2":
        return hf.GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=num_layers, n_head=4, n_positions=128, **ids)
    common = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        **ids,
    }
    if family == "gpt_neox":
        return hf.GPTNeoXConfig(**common)
    grouped = {**common, "num_key_value_heads": 2}
    match family:
        case "llama":
            return hf.LlamaConfig(**grouped)
        case "mistral":
            return hf.MistralConfig(**grouped, head_dim=8, sliding_window=None)
        case "qwen2":
            return hf.Qwen2Config(**grouped)
        case "qwen3":
            return hf.Qwen3Config(**grouped, head_dim=8)
        case "gemma2":
            return hf.Gemma2Config(**grouped, head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
        case "gemma3":
            return hf.Gemma3TextConfig(**grouped, head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
        case "phi3":
            return hf.Phi3Config(**grouped, original_max_position_embeddings=128)
        case "olmo2":
            return hf.Olmo2Config(**grouped)
        case "smollm3":
            return hf.SmolLM3Config(**grouped, no_rope_layer_interval=2)
    raise ValueError(f"no tiny {family!r}; there are {', '.join(FAMILIES)}")


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer):
    """Return a function that builds a small random causal LM: `tiny_model("qwen3", num_layers=3, seed=1)`.

    Weights are drawn wide enough that logits differ visibly from token to token. In eval mode, float32.
    """

    @functools.cache
    def drawn(family: str, num_layers: int, seed: int):
        import torch
        from transformers import AutoModelForCausalLM

        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_tiny_config(family, num_layers, len(tiny_tokenizer)))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.2)
        return model.float().eval(), torch.default_generator.get_state()

    def build(family: str = "llama", *, num_layers: int = 2, seed: int = 0):
        import torch

        model, afterwards = drawn(family, num_layers, seed)
        torch.default_generator.set_state(afterwards)
        return copy.deepcopy(model)

    return build


@pytest.fixture(params=FAMILIES)
def family(request):
    """The name of each family that the project supports, for what is dear: the quick tests take `QUICK_FAMILIES`."""
    return request.param


@pytest.fixture(params=FAMILIES)
def family_model(request, tiny_model):
    """One small random model of each family that the project supports."""
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def tiny_corpus(sentences):
    """Documents of three sentences in four languages."""
    from helpers.tiny_corpus import TinyCorpus

    return TinyCorpus(sentences, ("en", "es", "el", "tr"))
