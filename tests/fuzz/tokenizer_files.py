"""Targets: tokenizers of both kinds, and what transformers writes next to one."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

from kogpt2_gluon.convert.tokenizer_files import read_tokenizer
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.shards.segments import can_cut
from kogpt2_gluon.storage.tokenizer_file import read_limited, read_tokenizer_json
from kogpt2_gluon.tokens.bpe_dropout import BPEDropout
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.fuzz.mutate import dump, mutate_bytes, mutate_json
from tests.fuzz.target import Target

TEXT = "나 다. abc 1,2  가나"


def use(path: Path) -> None:
    tokenizer = Tokenizer.load(path)
    use_otherwise(path)
    ids = tokenizer.encode(TEXT)
    tokenizer.decode(ids)
    tokenizer.normalize(TEXT)
    tokenizer.never_written()


def use_otherwise(path: Path) -> None:
    """Takes a tokenizer into a converted folder, and a SentencePiece model into what reads its content by itself."""
    content = read_limited(path)
    can_cut(content, path)
    for make in (lambda: BPEDropout(content, path).encode([TEXT.encode()], 0.5, 0), lambda: read_tokenizer(path)):
        with contextlib.suppress(KoGPT2Error):
            make()


# ---- tokenizer.json


def json_seeds(folder: Path) -> list[bytes]:
    special = [{"id": number, "content": name, "special": True} for number, name in enumerate(("<s>", "</s>", "<unk>"))]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{**token, **flags} for token in special]
    parts = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "added_tokens": added}
    bpe = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "▁": 5, "ab": 6, "▁a": 7, "가": 8},
        "merges": [["a", "b"], ["▁", "a"]],
    }  # fmt: skip
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    pieces = [["<s>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -1.5], ["b", -2.0], ["▁", -2.5], ["▁a", -3.0]]
    unigram = {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False}
    spaces = {"pre_tokenizer": metaspace, "decoder": metaspace}
    return [
        dump({**parts, "normalizer": {"type": "NFKC"}, **spaces, "model": bpe}),
        dump({**parts, "normalizer": None, **spaces, "model": unigram}),
    ]


def config_seeds(folder: Path) -> list[bytes]:
    content = {"content": "<s>", "lstrip": False, "normalized": False}
    decoder = {"0": content, "1": {"content": "</s>", "special": True}}
    return [
        dump({"bos_token": content, "eos_token": "</s>", "unk_token": "<unk>", "added_tokens_decoder": decoder}),
        dump({"eos_token": "</s>", "pad_token": None}),
    ]


def place_json(path: Path, data: bytes) -> None:
    (path.parent / "tokenizer.json").write_bytes(json_seeds(path.parent)[0])


def read_beside(path: Path) -> None:
    tokenizer = path.parent / "tokenizer.json"
    read_tokenizer_json(read_limited(tokenizer), tokenizer)


# ---- SentencePiece models, which are messages of Protocol Buffers


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def model_seeds(folder: Path) -> list[bytes]:
    import io

    import sentencepiece

    seeds: list[bytes] = []
    rules = folder / "rules.tsv"
    rules.write_text("41\t61\nFF41 FF42\t61 62\n3000\t20\n", encoding="ascii")
    for kind, options in (
        ("bpe", {}),
        ("unigram", {"normalization_rule_name": "identity"}),
        ("bpe", {"byte_fallback": True, "vocab_size": 290, "user_defined_symbols": ["<unused0>", "ㅋㅋ"]}),
        ("bpe", {"normalization_rule_tsv": str(rules)}),  # a table of its own, of a few rules
    ):
        model = io.BytesIO()
        plain = {"vocab_size": 24, "hard_vocab_limit": False, "normalization_rule_name": "identity"}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["가나 다라", "abc ab", "가나다 abc"] * 4), model_writer=model, model_type=kind,
            pad_id=3, num_threads=1, minloglevel=2, **{**plain, **options},
        )  # fmt: skip
        seeds.append(model.getvalue())
    return seeds


def fields_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """Splits a message into its fields: number, wire type, content (for a number, its bytes). ValueError if it is none.

    A content that is itself a message is split by another call.
    """
    fields, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("not a message")
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind, start = key & 7, at
        if kind == 0:
            number()
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size = number()
            start, at = at, at + size
        else:
            raise ValueError("not a message")
        if at > len(data):
            raise ValueError("not a message")
        fields.append((key >> 3, kind, data[start:at]))
    return fields


def joined(fields: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        _varint(number << 3 | kind) + (_varint(len(content)) if kind == 2 else b"") + content
        for number, kind, content in fields
    )


def mutate_model(draw: random.Random, data: bytes) -> bytes:
    """Changes fields of the message, at any depth, with lengths that stay right; sometimes any byte."""
    if draw.randrange(6) == 0:
        return mutate_bytes(draw, data)
    try:
        fields = fields_of(data)
    except ValueError:
        return mutate_bytes(draw, data)
    for _ in range(1 << draw.randrange(3)):
        if not fields:
            break
        at, change = draw.randrange(len(fields)), draw.randrange(8)
        number, kind, content = fields[at]
        if change == 0:
            del fields[at]
        elif change == 1:
            fields.insert(draw.randrange(len(fields) + 1), fields[at])
        elif change == 2:
            fields[at] = (draw.choice((1, 2, 3, number, draw.randrange(1, 60))), kind, content)
        elif kind == 2 and len(content) < 4096 and change < 6:
            fields[at] = (number, kind, mutate_model(draw, content))
        elif kind == 0:
            fields[at] = (
                number,
                kind,
                _varint(draw.choice((0, 1, 2, 3, 4, 5, 6, 7, 255, 2**31, 2**32 - 1, 2**64 - 1))),
            )
        else:
            fields[at] = (number, kind, mutate_bytes(draw, content) if kind == 2 else draw.randbytes(len(content)))
    return joined(fields)


def mutate_tokenizer_json(draw: random.Random, data: bytes) -> bytes:
    """Changes a tokenizer.json, and sometimes exchanges a whole part of it."""
    new = mutate_json(draw, data)
    if draw.randrange(3):
        return new
    try:
        plain = json.loads(new)
        plain[draw.choice(("normalizer", "pre_tokenizer", "decoder"))] = draw.choice(PARTS)
        return dump(plain)
    except (ValueError, TypeError, RecursionError):
        return new


PARTS = [
    None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Sequence", "pretokenizers": [], "normalizers": [], "decoders": []}, {"type": "ByteFallback"},
    {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}, {"type": "Fuse"}, {"type": "Lowercase"},
    {"type": "Split", "pattern": {"Regex": "a*"}, "behavior": "Isolated", "invert": False},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Prepend", "prepend": "▁"}, {"type": "Digits", "individual_digits": True}, {"type": "WordPiece"},
]  # fmt: skip

TARGETS = [
    Target("tokenizer-json", "tokenizer.json", json_seeds, use, mutate_tokenizer_json, share=10),
    Target("tokenizer-config", "tokenizer_config.json", config_seeds, read_beside, mutate_json, place_json, share=10),
    Target("sentencepiece", "tokenizer.model", model_seeds, use, mutate_model, share=10),
]
