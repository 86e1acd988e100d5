import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lpr_lab import yaml_files
from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.yaml_files import dump_yaml, parse_yaml, read_yaml

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(values)
@example(1e300)
@example(1.7e308)
def test_what_is_written_comes_back(value):
    assert parse_yaml(dump_yaml(value), "test") == value


@pytest.mark.parametrize("text", ["no", "nan", "12e4567", "1:30", "on", "2026-11-22", "~", "0x1f", "1_000", "=", "<<"])
def test_text_stays_text_for_yaml_1_1_readers_too(text):
    assert yaml.safe_load(dump_yaml({text: [text]})) == {text: [text]}


def test_a_bare_no_is_norwegian_and_an_exponent_is_a_number():
    read = parse_yaml("languages: [el, no, nan]\nlr: 1e-4\nsince: 2026-11-22\nflag: true\nnothing: ~\n", "test")
    assert read == {"languages": ["el", "no", "nan"], "lr": 1e-4, "since": "2026-11-22", "flag": True, "nothing": None}


@pytest.mark.parametrize(
    "text",
    [
        *("a: [", "a: &x [1]\nb: *x", "&x [*x]", "&x {a: *x}", "!!python/object/apply:os.getcwd []", "\x00"),
        *("[" * 1000, "[" * 900_000, "- " * 400_000, "{a: " * 200_000),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_not_plain_yaml_is_refused_in_one_sentence(text):
    with pytest.raises(DamagedError, match=r"settings\.yaml .*YAML") as caught:
        parse_yaml(text, "settings.yaml")
    assert "\n" not in str(caught.value)


@given(values)
@example({"a": {"no": [1e-4, "1:30", "\u2028 \x85 🙂"]}})
def test_the_parser_in_c_reads_what_the_one_in_python_does(value):
    class InPython(yaml.SafeLoader):
        yaml_implicit_resolvers = yaml_files._Loader.yaml_implicit_resolvers

    for text in (dump_yaml(value), yaml.safe_dump(value, allow_unicode=True)):
        try:
            expected = yaml.load(text, Loader=InPython)
        except yaml.YAMLError:
            continue
        assert parse_yaml(text, "test") == expected


def test_a_huge_file_is_refused_before_it_is_parsed():
    with pytest.raises(DamagedError, match="at most"):
        parse_yaml("a" * 1_000_001, "settings.yaml")


def test_a_missing_or_undecodable_file_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"none\.yaml is missing"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match="not UTF-8"):
        read_yaml(tmp_path / "bad.yaml")


def test_a_file_that_was_read_and_changed_by_its_reader_reads_as_it_is_and_as_it_becomes(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("languages: [el]\n")
    read_yaml(path)["languages"].append("tr")
    assert read_yaml(path) == {"languages": ["el"]}
    path.write_text("languages: [el, hu]\n")
    assert read_yaml(path) == {"languages": ["el", "hu"]}
