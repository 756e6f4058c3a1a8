"""Which tokens of a tokenizer.json begin and end a document, and where that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.tokenizer_file import (
    StoredTokenizer,
    is_json,
    read_limited,
    read_tokenizer_json,
    stored_tokenizer,
    tokenizer_in,
)

PIECES = ["<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>", "[MASK]", ":-)", "a"]


def write(
    folder: Path, special: list[str], map_: Any = None, config: Any = None, pieces: list[str] = PIECES, **model: Any
) -> Path:
    """A BPE of some pieces, of which some are special; and what transformers writes next to it."""
    vocab = {piece: token for token, piece in enumerate(pieces)}
    added = [{"id": vocab[name], "content": name, "special": True} for name in special]
    plain = {"added_tokens": added, "model": {"type": "BPE", "vocab": vocab, "merges": [], **model}}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    for name, content in (("special_tokens_map.json", map_), ("tokenizer_config.json", config)):
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return path


def roles(path: Path) -> dict[str, str]:
    return read_tokenizer_json(path.read_bytes(), path).special


def of(bos: str, eos: str, **others: str) -> dict[str, str]:
    return {"bos_token": bos, "eos_token": eos, **{f"{name}_token": token for name, token in others.items()}}


def test_well_known_names_among_the_special_tokens(tmp_path: Path) -> None:
    assert roles(write(tmp_path, PIECES[:4])) == of("<s>", "</s>", unk="<unk>", pad="<pad>")
    assert roles(write(tmp_path, ["</s>"])) == of("</s>", "</s>")  # <s> is a piece like any other: a tag of HTML
    assert roles(write(tmp_path, ["<s>"])) == of("<s>", "<s>")
    assert roles(write(tmp_path, ["<|endoftext|>"])) == of("<|endoftext|>", "<|endoftext|>")
    assert roles(write(tmp_path, ["</s>"], unk_token="a")) == of("</s>", "</s>", unk="a")  # the model says it
    assert roles(write(tmp_path, ["</s>"], unk_token="</s>")) == of("</s>", "</s>")


def test_a_guess_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"</s> and <\|endoftext\|> can both be its eos_token; say which one is in .*map"
    ):
        roles(write(tmp_path, PIECES))
    with pytest.raises(DataError, match=r"nothing says which token ends a document; name it in .*special_tokens_map"):
        roles(write(tmp_path, ["[MASK]", ":-)"]))
    assert roles(write(tmp_path, PIECES, {"eos_token": "</s>"}))["eos_token"] == "</s>"
    assert roles(write(tmp_path, [], {"eos_token": "a"})) == of("a", "a")  # any piece will do


def test_what_transformers_writes_next_to_it(tmp_path: Path) -> None:
    both = {"bos_token": "</s>", "eos_token": {"content": "</s>", "lstrip": False}}
    assert roles(write(tmp_path, PIECES[:4], both)) == of("</s>", "</s>", unk="<unk>", pad="<pad>")
    assert roles(write(tmp_path, PIECES[:4], None, both)) == of("</s>", "</s>", unk="<unk>", pad="<pad>")
    gpt2 = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    assert roles(write(tmp_path, ["<|endoftext|>"], gpt2)) == of("<|endoftext|>", "<|endoftext|>")
    qwen = {"bos_token": None, "eos_token": "<|endoftext|>", "unk_token": None, "pad_token": "[MASK]"}
    assert roles(write(tmp_path, PIECES[:4], None, qwen)) == of("<|endoftext|>", "<|endoftext|>", pad="[MASK]")
    # The map goes first; a config that lists the added tokens is newer than it.
    config = {"eos_token": "<|endoftext|>", "bos_token": "<s>"}
    assert roles(write(tmp_path, PIECES[:4], both, config))["eos_token"] == "</s>"
    config["added_tokens_decoder"] = {}
    assert roles(write(tmp_path, PIECES[:4], both, config))["eos_token"] == "<|endoftext|>"
    # A padding token that only transformers has, as it would add it, is none.
    assert roles(write(tmp_path, ["</s>"], {"pad_token": "[PAD]"})) == of("</s>", "</s>")


@pytest.mark.parametrize(
    ("map_", "words"),
    [
        ({"eos_token": "<end>"}, "it has no token '<end>', which is named as its eos_token"),
        ({"bos_token": "<begin>"}, "it has no token '<begin>', which is named as its bos_token"),
        ({"eos_token": 3}, r"special_tokens_map\.json: a special token is 3, not a text"),
        ([], r"special_tokens_map\.json: not a tokenizer\.json: list instead of an object"),
    ],
)
def test_what_is_wrong_next_to_it(tmp_path: Path, map_: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        roles(write(tmp_path, PIECES[:4], map_))


def test_the_stored_file_says_it_alone(tmp_path: Path) -> None:
    """Only if it does not say so already; and its hash differs from that of other special tokens."""
    path = write(tmp_path, PIECES[:4], {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
    assert stored_tokenizer(path) == StoredTokenizer("tokenizer.json", path.read_bytes())
    path = write(tmp_path, PIECES[:4], {"bos_token": "a", "eos_token": "</s>", "pad_token": None})
    stored = stored_tokenizer(path)
    plain = json.loads(stored.content)
    assert stored.content != path.read_bytes() and plain["model"] == json.loads(path.read_bytes())["model"]
    assert [token.pop("roles", []) for token in plain["added_tokens"]] == [
        [],
        ["eos_token"],
        [],
        ["unk_token"],
        ["bos_token"],
    ]
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<s>"}')  # has no say any more
    path.write_bytes(stored.content)
    assert stored_tokenizer(path).content == stored.content
    assert roles(path) == of("a", "</s>", unk="<unk>")


def test_controls_and_symbols(tmp_path: Path) -> None:
    path = write(tmp_path, [*PIECES[:4], "[MASK]", ":-)"], {"eos_token": "a"})
    file = read_tokenizer_json(path.read_bytes(), path)
    assert set(file.controls) == {"<s>", "a", "<pad>", "<unk>", "</s>", "[MASK]"} and file.special_symbols == [":-)"]


def test_the_kind_is_in_the_content_and_then_in_the_name(tmp_path: Path, small_tokenizer: bytes) -> None:
    assert not is_json(small_tokenizer) and not is_json(b"") and not is_json(b"\n{\n\x05<unk>")
    assert all(map(is_json, (b"{}", b' \n{ "a": 1}', '{"a": 1}'.encode("utf-8-sig"))))
    path = tmp_path / "any.name"
    path.write_bytes(small_tokenizer)
    assert stored_tokenizer(path) == StoredTokenizer("tokenizer.model", small_tokenizer)
    assert tokenizer_in(tmp_path).name == "tokenizer.model"
    write(tmp_path, ["</s>"])
    assert tokenizer_in(tmp_path).name == "tokenizer.json"
    with pytest.raises(DataError, match="the tokenizer cannot be read: Is a directory"):
        read_limited(tmp_path)
    with (tmp_path / "endless").open("wb") as file:
        file.truncate((128 << 20) + 1)
    with pytest.raises(DataError, match="endless: more than 128 MiB, larger than any tokenizer"):
        read_limited(tmp_path / "endless")
