"""Cleaning options: files, presets, overrides, and faults that are all reported at once."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.cleaning.characters import CAPITAL, NAMES
from kogpt2_gluon.corpus.cleaning.filters import TextCleaner
from kogpt2_gluon.corpus.cleaning.line_filters import LineFilter
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows
from kogpt2_gluon.corpus.cleaning.options import CleaningOptions, load_options, parse_options, presets
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import from_plain, option
from tests.helpers import ROOT


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_defaults_are_the_default_preset() -> None:
    assert load_options(None) == load_options("default") == CleaningOptions()
    assert load_options(None).enabled() == ["normalize", "repeated"]


@dataclass
class Shouting(LineFilter):
    """Lines with many capitals are dropped."""

    enabled: bool = option(False, "drop such lines")
    max_capitals: int = option(3, "capitals that a line has at most")

    def drop(self, lines: Lines, owners: Rows) -> Flags:
        return lines.count(CAPITAL) > self.max_capitals


@dataclass
class MoreOptions(CleaningOptions):
    shouting: Shouting = field(default_factory=Shouting)


def test_a_new_filter_is_a_class_and_its_line_in_the_options() -> None:
    options, faults = from_plain(MoreOptions, {"shouting": {"enabled": True}}, ["shouting.max_capitals=2"])
    assert not faults and options.enabled() == ["normalize", "repeated", "shouting"]
    batch = TextCleaner(options).clean(["한국 ABC\n한국 AB", "ABC"])
    assert batch.texts == ["한국 AB", None] and batch.lines == {"shouting": 2} and batch.reasons == ["", "shouting"]


def test_docs_name_every_filter_and_whether_it_is_in_web() -> None:
    docs = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = docs[docs.index("| filter | does |") :].partition("\n\n")[0]
    rows = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines()[2:]]
    named = {name: in_web for names, _, in_web in rows for name in re.findall("`([a-z_]+)`", names)}
    default, lm_kor, web = (set(load_options(preset).enabled()) for preset in presets())
    words = {}
    for name in vars(CleaningOptions()):
        others = "`lm_kor` only" if name in lm_kor else "no"
        words[name] = "always on" if name in default else "yes" if name in web else others
    assert named == words


def test_presets_build_on_each_other() -> None:
    assert presets() == ["default", "lm_kor", "web"]
    web, lm_kor = load_options("web"), load_options("lm_kor")
    assert set(lm_kor.enabled()) - set(web.enabled()) == {"emoji", "hanja", "characters"}
    assert dataclasses.replace(lm_kor, emoji=web.emoji, hanja=web.hanja, characters=web.characters) == web
    # All cheap filters but those three are on in `web`; duplicates across documents are not cheap.
    off = {field.name for field in dataclasses.fields(CleaningOptions)} - set(web.enabled())
    assert off == {"emoji", "hanja", "characters", "duplicate_lines", "near_duplicates"}


def test_a_file_and_overrides(tmp_path: Path) -> None:
    path = write(
        tmp_path / "filters.yaml",
        'base: lm_kor\nhtml: false\nlength: {min_chars: 5, max_chars: 1e6}\nurl: {replacement: ""}\nphone:\n',
    )
    options = load_options(
        path, ["hanja=false", "length.min_chars=7", "email.replacement=&메일&", "near_duplicates=true"]
    )
    assert not options.html.enabled and not options.hanja.enabled and options.near_duplicates.enabled
    assert (options.length.enabled, options.length.min_chars, options.length.max_chars) == (True, 7, 1_000_000)
    assert options.url.enabled and options.url.replacement == ""
    assert options.email.replacement == "&메일&"
    assert options.phone == load_options("web").phone
    assert TextCleaner(options).clean(["보세요 http://a.kr/b 그리고 a@b.kr"]).texts == ["보세요 그리고 &메일&"]


def test_round_trip_and_fingerprint(tmp_path: Path) -> None:
    options = load_options("lm_kor", ["characters.also=漢字"])
    again = load_options(write(tmp_path / "a.yaml", options.to_yaml()))
    assert again == options
    assert again.to_dict() == options.to_dict()
    assert again.fingerprint() == options.fingerprint() != load_options("lm_kor").fingerprint()
    assert len(options.fingerprint()) == 64


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml", "htlm: true\nlength: {min_chars: -1}\nrepetition: {keep: two}\nnormalize: {form: NFD}\n"
    )
    with pytest.raises(RecipeError) as error:
        load_options(path, ["phone.enabled=perhaps", "urls=true"])
    message = str(error.value)
    assert "a.yaml: 6 faults" in message
    for part in (
        "unknown key htlm; did you mean html?",
        "length.min_chars: -1 is below 0",
        "repetition.keep: expected a whole number, got 'two'",
        "normalize.form: 'NFD' is none of NFC, NFKC",
        "phone.enabled: expected true or false",
        "unknown key urls; did you mean url",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("characters.keep=[hangul, cyrillic]", "'cyrillic' is none of hangul"),
        ("phone.replacement=010", "phone.replacement: '010': give a word without digits"),
        ("email.replacement=x@y", "without digits, @"),
        ("card.replacement=", "card.replacement: ''"),
        ("boilerplate.phrases=[' ']", "boilerplate.phrases"),
        ("length.max_chars=3", "length.max_chars=3 is below min_chars=10"),
        ("characters.also=\ud800", "characters.also"),
    ],
)
def test_fields_that_do_not_go_together(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        load_options(None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- html\n", "a mapping of sections is expected, not a list"),
        ("html: [", "not readable as YAML"),
        ("base: wed\n", "'wed' is none of the presets default, lm_kor, web"),
        ("html: 3\n", "html: expected a section with keys, got 3"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_options(write(tmp_path / "a.yaml", text))


def test_unknown_names() -> None:
    with pytest.raises(
        RecipeError, match=r"filters nowhere: no such file, and no preset of that name \(default, lm_kor"
    ):
        load_options("nowhere")
    with pytest.raises(RecipeError, match="is none of the presets"):
        parse_options({"base": ["web"]})


def test_every_option_says_what_it_means() -> None:
    for entry in dataclasses.fields(CleaningOptions):
        section = getattr(CleaningOptions(), entry.name)
        assert section.__doc__
        for inner in dataclasses.fields(section):
            assert inner.metadata["help"], f"{entry.name}.{inner.name}"
    assert all(name in dataclasses.fields(CleaningOptions().characters)[1].metadata["help"] for name in NAMES)


# What each filter of a preset acts on, in a text that no other filter would touch so.
PRESET_TEXTS = {
    "html": "<b>정말</b> 재미있는 영화였어요 &amp; 추천합니다",
    "emoji": "정말 재미있는 영화였어요 👍 추천합니다",
    "hanja": "정말 재미있는 영화(映畫)였어요 추천합니다",
    "characters": "정말 재미있는 영화였어요 шедевр 추천합니다",
    "repetition": "정말 재미있는 영화였어요 ㅋㅋㅋㅋㅋㅋ",
    "url": "정말 재미있는 영화였어요 https://a.kr/b 추천합니다",
    "email": "정말 재미있는 영화였어요 hong@a.kr 추천합니다",
    "resident_number": "정말 재미있는 영화였어요 800101-1234560 추천합니다",
    "card": "정말 재미있는 영화였어요 4111-1111-1111-1111 추천합니다",
    "phone": "정말 재미있는 영화였어요 010-2345-6789 추천합니다",
    "account": "정말 재미있는 영화였어요 농협 110-123-456789 추천합니다",
    "short_line": "정말 재미있는 영화였어요\n가\n추천합니다",
    "no_hangul": "정말 재미있는 영화였어요\nnice movie\n추천합니다",
    "boilerplate": "정말 재미있는 영화였어요\n무단 전재 및 재배포 금지\n추천합니다",
    "repeated": "정말 재미있는 영화였어요\n정말 재미있는 영화였어요",
    "length": "짧은 글",
    "hangul_share": "a very long English sentence with 한글",
    "symbol_ratio": "정말 최고다 !?~+*=^:;",
    "repeated_lines": "\n".join(["정말 재미있는 영화", "추천합니다"] * 6),
    "repeated_ngrams": "하나 둘 셋 넷 다섯 여섯 일곱 " * 10,
}


@pytest.mark.parametrize("preset", ["default", "web", "lm_kor"])
def test_every_filter_of_a_preset_acts(preset: str) -> None:
    """Switched off, each one leaves a text otherwise, or (emoji: `characters` takes them too) counted otherwise."""
    enabled = [name for name in load_options(preset).enabled() if name != "normalize"]
    assert enabled and set(enabled) <= set(PRESET_TEXTS)
    for name in enabled:
        with_it = TextCleaner(load_options(preset)).clean([PRESET_TEXTS[name]])
        without = TextCleaner(load_options(preset, [f"{name}.enabled=false"])).clean([PRESET_TEXTS[name]])
        assert with_it.texts != without.texts or name == "emoji", name
        assert name not in {*without.changed, *without.lines, *without.reasons}, name
        assert name in {*with_it.changed, *with_it.lines, *with_it.reasons}, name


def test_options_of_a_filter_that_is_off_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"length is off; add --set length=true$"):
        load_options(None, ["length.min_chars=50"])
    assert load_options(None, ["length.min_chars=50", "length=true"]).length.min_chars == 50
    assert load_options("web", ["length.min_chars=50"]).length.enabled
    with pytest.raises(RecipeError, match="length is off; add enabled: true"):
        load_options(write(tmp_path / "a.yaml", "length: {min_chars: 50}"))
    load_options(write(tmp_path / "b.yaml", "length: {min_chars: 50, enabled: false}"))
    with pytest.raises(RecipeError, match=r"write near_duplicates=true$"):
        load_options(None, ["near_duplicates"])
