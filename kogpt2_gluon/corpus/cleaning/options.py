"""The options of the filters: from a YAML file, or from a preset shipped with the package.

A file names what it changes, one section for each filter; `html: true` is short for `html: {enabled: true}`. With
`base: web` it starts from a preset instead of the defaults. The sections of `CleaningOptions` are in the order in which
the filters run; each field carries its meaning and the values it admits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.corpus.cleaning.characters import NAMES
from kogpt2_gluon.corpus.cleaning.document_filters import (
    HangulShare,
    Length,
    RepeatedLines,
    RepeatedNgrams,
    SymbolRatio,
)
from kogpt2_gluon.corpus.cleaning.line_filters import Boilerplate, NoHangul, Repeated, ShortLine
from kogpt2_gluon.corpus.cleaning.near_duplicates import NearDuplicateOptions
from kogpt2_gluon.corpus.cleaning.normalize import FORMS
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import from_plain, option, to_yaml
from kogpt2_gluon.user_files import read_yaml

PRESETS = Path(__file__).parent / "presets"
RULES_VERSION = 3  # raised when a filter's rule changes: corpora cleaned before and after are not the same


@dataclass
class Html:
    """Tags, comments, scripts and style sheets are removed, entities decoded: once, as a browser would."""

    enabled: bool = option(False, "read the text as HTML")


@dataclass
class Normalize:
    """Always on: one Unicode form, white space collapsed, control and invisible characters removed."""

    form: str = option("NFC", "Unicode form; NFKC also folds ａ, ㎏, ㈜, but no single jamo (ㅋ)", choices=FORMS)


@dataclass
class Emoji:
    """Emoji are deleted; ★ ♥ and other signs of KS X 1001 are symbols and stay."""

    enabled: bool = option(False, "delete emoji")


@dataclass
class Hanja:
    """Hanja are deleted, with the brackets that held nothing else: 대한민국(大韓民國) -> 대한민국."""

    enabled: bool = option(False, "delete hanja")


@dataclass
class Characters:
    """Only the characters of some classes stay; ASCII always does."""

    enabled: bool = option(False, "delete characters of all other classes")
    keep: list[str] = option(
        ["hangul", "latin", "digit", "punctuation", "symbol"],
        f"classes that stay, of {', '.join(NAMES)} (symbol: those of KS X 1001, and ² ₆)",
    )
    also: str = option("", "single characters that stay as well")


@dataclass
class Repetition:
    """Runs of one character or of a short group are cut: ㅋㅋㅋㅋㅋ -> ㅋㅋㅋ. Groups with a digit or A-Z stay."""

    enabled: bool = option(False, "cut runs")
    keep: int = option(3, "how many times the group stays", minimum=1)
    group: int = option(4, "longest group, in characters", minimum=1, maximum=16)


@dataclass
class Mask:
    """One kind of personal data is masked: a placeholder takes its place."""

    enabled: bool = option(False, "mask it")
    replacement: str = option("", "the placeholder")


def mask(placeholder: str, what: str, removable: bool = False) -> Any:
    """Returns a field for a Mask with its own placeholder; `what` is masked, `removable` admits an empty one."""
    return field(default_factory=lambda: Mask(replacement=placeholder), metadata={"help": what, "removable": removable})


@dataclass
class DuplicateLines:
    """Lines that an earlier document has are dropped, wherever that document is in the corpus."""

    enabled: bool = option(False, "drop such lines")
    min_chars: int = option(20, "shorter lines stay: greetings and interjections are said often", minimum=1)


@dataclass
class CleaningOptions:
    """All filters, in their order. The defaults only normalise, and drop empty lines and adjacent equal ones."""

    html: Html = field(default_factory=Html)
    normalize: Normalize = field(default_factory=Normalize)
    emoji: Emoji = field(default_factory=Emoji)
    hanja: Hanja = field(default_factory=Hanja)
    characters: Characters = field(default_factory=Characters)
    repetition: Repetition = field(default_factory=Repetition)
    url: Mask = mask("&url&", "web addresses; removed if the placeholder is empty", removable=True)
    email: Mask = mask("&email&", "e-mail addresses")
    resident_number: Mask = mask(
        "&social-security-num&",
        "resident registration numbers (주민등록번호), also those of foreigners, if day and check digit are right",
    )
    card: Mask = mask("&card-num&", "numbers of payment cards, if Luhn's check holds")
    phone: Mask = mask("&tel-num&", "Korean mobile and land lines")
    account: Mask = mask("&account-num&", "numbers of bank accounts next to an account word or the name of a bank")
    short_line: ShortLine = field(default_factory=ShortLine)
    no_hangul: NoHangul = field(default_factory=NoHangul)
    boilerplate: Boilerplate = field(default_factory=Boilerplate)
    repeated: Repeated = field(default_factory=Repeated)
    length: Length = field(default_factory=Length)
    hangul_share: HangulShare = field(default_factory=HangulShare)
    symbol_ratio: SymbolRatio = field(default_factory=SymbolRatio)
    repeated_lines: RepeatedLines = field(default_factory=RepeatedLines)
    repeated_ngrams: RepeatedNgrams = field(default_factory=RepeatedNgrams)
    duplicate_lines: DuplicateLines = field(default_factory=DuplicateLines)
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)

    def to_dict(self) -> dict[str, Any]:
        """Returns all sections as plain data."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """Returns the options as a file that `load_options` reads back."""
        return to_yaml(self.to_dict())

    def fingerprint(self) -> str:
        """Returns the SHA-256 (hex) over every option and the version of the rules."""
        plain = {"rules": RULES_VERSION, **self.to_dict()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def enabled(self) -> list[str]:
        """Returns the filters that run, in their order; `normalize` always does."""
        return [name for name, section in vars(self).items() if getattr(section, "enabled", True)]


def presets() -> list[str]:
    """Returns the names of the shipped presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_options(path: str | None, overrides: Sequence[str] = ()) -> CleaningOptions:
    """Returns options from a YAML file or a preset's name (None: the defaults), then `section.key=value` overrides.

    Raises RecipeError naming every fault at once: unknown keys with the nearest known one, values out of range, unknown
    bases, placeholders that another filter would change.
    """
    plain = {} if path is None else read_yaml(_find(path), "filters")
    source = "filters" if path is None else f"filters {path}"
    return parse_options(plain, overrides, source)


def parse_options(plain: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "filters") -> CleaningOptions:
    """Returns options from plain data as a file holds it; `source` names it in messages."""
    plain = dict(plain)
    base = plain.pop("base", None)
    merged: dict[str, Any] = {}
    if base is not None:
        if base not in presets():
            raise RecipeError(f"{source}: base: {base!r} is none of the presets {', '.join(presets())}")
        if "base" in (layer := read_yaml(PRESETS / f"{base}.yaml", "filters")):
            merged = _sections(read_yaml(PRESETS / f"{layer.pop('base')}.yaml", "filters"))
        _merge(merged, _sections(layer))
    _merge(merged, _sections(plain))
    overrides = [_long_form(override) for override in overrides]
    bare = [f"{name}: write {name}=true" for name in overrides if name in vars(CleaningOptions())]
    options, found = from_plain(CleaningOptions, merged, [text for text in overrides if "=" in text or not bare])
    faults = bare + [fault.text for fault in found]
    faults = faults or _cross_check(options) + _without_effect(options, plain, overrides)
    if faults:
        head = f"{source}: " if len(faults) == 1 else f"{source}: {len(faults)} faults:\n  "
        raise RecipeError(head + "\n  ".join(faults))
    return options


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    if name in presets():
        return PRESETS / f"{name}.yaml"
    raise RecipeError(f"filters {name}: no such file, and no preset of that name ({', '.join(presets())})")


def _sections(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the data with `html: true` written as `html: {enabled: true}`."""
    return {str(key): {"enabled": value} if isinstance(value, bool) else value for key, value in plain.items()}


def _long_form(override: str) -> str:
    key, _, value = override.partition("=")
    if "." not in key and value.strip() in ("true", "false") and key in vars(CleaningOptions()):
        return f"{key}.enabled={value}"
    return override


def _merge(plain: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(plain.get(key), Mapping):
            plain[key] = {**plain[key], **value}
        elif value is not None or key not in plain:
            plain[key] = value


def _without_effect(options: CleaningOptions, plain: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Returns faults for options of filters that are off, unless the same file or command turned these off."""
    faults = []
    for name in vars(options):
        if getattr(getattr(options, name), "enabled", True):
            continue
        section = plain.get(name)
        in_file = list(section) if isinstance(section, Mapping) else []
        on_line = [text.partition("=")[0].partition(".")[2] for text in overrides if text.startswith(f"{name}.")]
        for keys, way_out in ((in_file, "enabled: true"), (on_line, f"--set {name}=true")):
            if keys and "enabled" not in keys and "enabled" not in on_line:
                faults.append(f"{name}.{keys[0]}: {name} is off; add {way_out}")
    return faults


def _cross_check(options: CleaningOptions) -> list[str]:
    """Returns faults between fields that are each admissible alone."""
    faults = []
    for name in options.characters.keep:
        if name not in NAMES:
            faults.append(f"characters.keep: {name!r} is none of {', '.join(NAMES)}")
    if not options.characters.also.isprintable():
        faults.append(f"characters.also: {options.characters.also!r} has what normalisation removes")
    if 0 < options.length.max_chars < options.length.min_chars:
        faults.append(f"length.max_chars={options.length.max_chars} is below min_chars={options.length.min_chars}")
    for phrase in options.boilerplate.phrases:
        if not phrase.strip() or "\n" in phrase:
            faults.append(f"boilerplate.phrases: {phrase!r} is empty or has a line end")
    for entry in dataclasses.fields(options):
        section = getattr(options, entry.name)
        if not isinstance(section, Mask):
            continue
        name, text = entry.name, section.replacement
        if (
            (not text and not entry.metadata["removable"])
            or text != " ".join(text.split())
            or "@" in text
            or any(map(str.isdigit, text))
        ):
            faults.append(
                f"{name}.replacement: {text!r}: give a word without digits, @ or white space at its ends, "
                "so that no filter takes it for something to mask"
            )
    return faults
