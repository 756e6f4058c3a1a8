"""Files of the `tokenizers` library for tests: byte-level BPE as GPT-2 has it, KoGPT2's newer form, and Unigram."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END = "<|endoftext|>"
KOGPT2 = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>", "<unused0>", "<unused1>"]
EMOTICONS = [":-)", "^^", "😀"]
SENTENCES = (
    """이 영화는 정말 재미있다 ㅋㅋㅋ 최고!
그날 밤 바다는 조용했다. 아무도 없었다.
The film was 100% fun, wasn't it?
오늘은 날씨가 좋아서   산책을 했다.""".splitlines()
    * 20
)


def byte_level(lines: Sequence[str] = SENTENCES, vocab_size: int = 400) -> Tokenizer:
    """GPT-2's own kind: no unknown token, no padding, and one token between documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def kogpt2(lines: Sequence[str] = SENTENCES, vocab_size: int = 400) -> Tokenizer:
    """The kind of skt/kogpt2-base-v2: the model does not name its unknown token, and emoticons are special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = [AddedToken(name, special=True, normalized=False) for name in (*KOGPT2, *EMOTICONS)]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def unigram(lines: Sequence[str] = SENTENCES, vocab_size: int = 300) -> Tokenizer:
    """T5's kind: it cuts at spaces of any width, and its model has the special tokens among its pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def llama(lines: Sequence[str] = SENTENCES, vocab_size: int = 600) -> Tokenizer:
    """Llama 2's kind: a space in front by the normalizer, no pre-tokenizer, and bytes for what has no piece."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<unk>", "<s>", "</s>", *pieces], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]  # the bytes are pieces and nothing more
    return Tokenizer.from_str(json.dumps(plain))


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "kogpt2": kogpt2,
    "unigram": unigram,
    "llama": llama,
}


def write_json(
    folder: Path, tokenizer: Tokenizer, change: Callable[[dict[str, Any]], object] = len, **special: Any
) -> Path:
    """Writes tokenizer.json after `change`, and a special_tokens_map.json if `special` tokens are given."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(tokenizer.to_str())
    change(plain)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    if special:
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    return path
