"""The file of a tokenizer: its name in a folder, and which tokens of a ``tokenizer.json`` begin and end a document.

A folder of shards or a checkpoint has one tokenizer, whose name says what it is: ``tokenizer.model`` is a SentencePiece
model, ``tokenizer.json`` a file of the `tokenizers` library.

A tokenizer.json does not say which of its tokens begin and end a document, fill up and replace unknown text. So these
are looked up, in this order, until one place has an answer for each:

1. in the file's own entries of ``added_tokens``, under ``roles``, where this program has written them;
2. in ``special_tokens_map.json`` and ``tokenizer_config.json`` next to it, as transformers writes them;
3. in the model (its unknown token) and by well-known names among the special tokens. A file that has two names for the
   same purpose is refused: a guess would train a model on documents that end in the wrong token.

If 2 gives another answer than 3, the answer is written into the content under ``roles``: the file alone is then enough,
and tokenizers that differ in it have different hashes. `tokenizers` and transformers do not look at that field.

A file whose text is cut at morphemes (:mod:`kogpt2_gluon.tokens.morphemes`) says so in its pre-tokenizer, under
``morphemes``. `tokenizers` does not look at that field either, and transformers leaves it out when it saves the file
again; it is then taken from tokenizer_config.json, where a converted folder has it too and transformers keeps it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Optional

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.links import read_file

SENTENCEPIECE, TOKENIZER_JSON = NAMES = ("tokenizer.model", "tokenizer.json")
LARGEST = 128 << 20  # bytes; four times the largest vocabulary in use (262,144 pieces)
LFS = b"version https://git-lfs"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")  # transformers' names
KNOWN = {
    "bos_token": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|bos|>"),
    "eos_token": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>", "<|eos|>", "<EOT>"),
    "unk_token": ("<unk>", "[UNK]", "<|unk|>"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
}
BRACKETED = re.compile(r"<.*\w.*>|\[.*\w.*\]", re.DOTALL)
MAP, CONFIG = "special_tokens_map.json", "tokenizer_config.json"
MORPHEMES = "morphemes"
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*[\"}]")  # no SentencePiece model begins so

Found = dict[str, Optional[str]]  # a role and its token; None where something says that there is none


class StoredTokenizer(NamedTuple):
    """A tokenizer as a folder of shards or a checkpoint has it: the name that says its kind, and the file's content."""

    file_name: str
    content: bytes


def stored_tokenizer(path: Path) -> StoredTokenizer:
    """Reads a tokenizer's file as it is stored, with its special tokens named; DataError as for its parts.

    A SentencePiece model is not looked into.
    """
    content = read_limited(path)
    if is_json(content):
        return StoredTokenizer(TOKENIZER_JSON, read_tokenizer_json(content, path).content)
    return StoredTokenizer(SENTENCEPIECE, content)


def tokenizer_in(folder: Path) -> Path:
    """Returns the path of a folder's tokenizer, under the name that it has there; tokenizer.model if there is none."""
    return next((folder / name for name in NAMES if (folder / name).exists()), folder / SENTENCEPIECE)


def read_limited(path: Path) -> bytes:
    """Reads a tokenizer's file. DataError if it cannot be read, or is larger than any tokenizer."""
    try:
        content = read_file(path, LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path}: the tokenizer cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise DataError(f"{path}: more than {LARGEST >> 20} MiB, larger than any tokenizer")
    if content.startswith(LFS):
        raise DataError(f"{path}: only the name of a file in Git LFS; fetch the file itself (git lfs pull)")
    return content


def is_json(content: bytes) -> bool:
    """Returns True if a tokenizer's content is a JSON object, False if it may be a SentencePiece model."""
    return bool(_JSON.match(content))


@contextmanager
def library_errors(path: Path, what: str) -> Iterator[None]:
    """Makes one line of whatever the `tokenizers` library raises: plain Exceptions, and panics, which are none.

    `what` says what it cannot do with the file at `path`.
    """
    try:
        yield
    except (DataError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        words = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: the tokenizers library {version('tokenizers')} {what}: {words}") from None


@dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json as :func:`read_tokenizer_json` found it.

    Attributes
    ----------
    path : Path
    content : bytes
        The file as shards and checkpoints store it: as it was read, or with ``roles``.
    plain : dict
        The same, parsed. Its ``model`` is a BPE or Unigram model, and its parts have the right types.
    special : dict
        The token of each role, ``bos_token`` and ``eos_token`` always among them; they can be one token. ``unk_token``
        and ``pad_token`` are missing where there is none, or where the one that begins or ends a document is named.
    """

    path: Path
    content: bytes
    plain: dict[str, Any]
    special: dict[str, str]

    @property
    def vocabulary(self) -> dict[str, int]:
        """The pieces of the model, without added tokens, and their ids."""
        vocab = self.plain["model"]["vocab"]
        return vocab if isinstance(vocab, dict) else {piece: token for token, (piece, _) in enumerate(vocab)}

    @property
    def morphemes(self) -> dict[str, Any] | None:
        """The analyzer that cuts a text before this file's model gets it; None if nothing does."""
        cuts: dict[str, Any] | None = (self.plain.get("pre_tokenizer") or {}).get(MORPHEMES)
        return cuts

    @property
    def controls(self) -> list[str]:
        """The tokens that no text can insert: those with a role, and special ones with a name in brackets."""
        named = [name for name in self._marked if BRACKETED.fullmatch(name)]
        return list(dict.fromkeys([*self.special.values(), *named]))

    @property
    def special_symbols(self) -> list[str]:
        """The tokens that are marked as special and are text all the same, such as the emoticons of KoGPT2."""
        controls = set(self.controls)
        return [name for name in self._marked if name not in controls]

    @property
    def _marked(self) -> list[str]:
        return [token["content"] for token in self.plain.get("added_tokens", []) if token.get("special") is True]


def read_tokenizer_json(content: bytes, path: Path) -> TokenizerJson:
    """Parses a tokenizer.json and finds its special tokens, next to `path` too.

    DataError, in one line, if it is not such a file, has a model of another type than BPE and Unigram, or does not say
    which token ends a document.
    """
    plain = _parse(content, path)
    _check_types(plain, path)
    if _takes_cuts(plain, path):
        content = _dump(plain, path)
    _check_morphemes(plain, path)
    file = TokenizerJson(path, content, plain, {})
    stated = _stated(plain)
    if stated:
        return TokenizerJson(path, content, plain, _complete(stated, file))
    beside = _next_to(path)
    special = _complete({**_by_name(file, beside), **beside, **_unknown_of(file)}, file)
    if beside and special != _without_help(file):
        content = _with_roles(file, special)
    return TokenizerJson(path, content, plain, special)


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON, or damaged ({error})") from None
    if not isinstance(plain, dict):
        raise DataError(f"{path}: not a tokenizer.json: {type(plain).__name__} instead of an object")
    return plain


def _check_types(plain: dict[str, Any], path: Path) -> None:
    """Raises DataError if the parts that this program looks at are not what `tokenizers` writes."""
    model, added = plain.get("model"), plain.get("added_tokens", [])
    if not isinstance(model, dict) or "vocab" not in model:
        raise DataError(f'{path}: JSON, but not a tokenizer.json of the `tokenizers` library: it has no "model"')
    vocab, merges = model["vocab"], model.get("merges", [])
    kind = str(model.get("type") or "") or ("BPE" if merges else "Unigram" if isinstance(vocab, list) else "WordPiece")
    if kind not in ("BPE", "Unigram"):
        raise DataError(f"{path}: its model is a {kind[:40]}; a language model here takes BPE or Unigram")
    # tokenizers 0.23.3 ends the whole process, by a panic within a panic, at a prefix that pieces do not have.
    if marks := [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]:
        raise DataError(
            f"{path}: its model has {marks[0]}={str(model[marks[0]])[:20]!r}; a language model here takes pieces that "
            "spell a text alone"
        )
    pairs = vocab.items() if isinstance(vocab, dict) else vocab if isinstance(vocab, list) else None
    right = pairs is not None and isinstance(vocab, dict if kind == "BPE" else list)
    right = right and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs or ())
    right = right and all(isinstance(piece, str) and isinstance(value, (int, float)) for piece, value in pairs or ())
    if not right or not isinstance(merges, list):
        raise DataError(f"{path}: the vocabulary or the merges of its model are damaged")
    if isinstance(vocab, dict) and len(set(vocab.values())) < len(vocab):
        raise DataError(f"{path}: two pieces of its model have one id")
    if not isinstance(added, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) for token in added
    ):
        raise DataError(f"{path}: its added_tokens are damaged")


def _takes_cuts(plain: dict[str, Any], path: Path) -> bool:
    """Returns True if tokenizer_config.json names an analyzer and the file itself does not; it is then put in."""
    cuts, config = plain.get("pre_tokenizer"), path.parent / CONFIG
    if not isinstance(cuts, dict) or MORPHEMES in cuts or path.name != TOKENIZER_JSON or not config.is_file():
        return False
    analyzer = _parse(read_limited(config), config).get(MORPHEMES)
    if analyzer is None:
        return False
    cuts[MORPHEMES] = analyzer
    return True


def _check_morphemes(plain: dict[str, Any], path: Path) -> None:
    """Raises DataError if what a file says of its analyzer is not words and numbers under names."""
    cuts = plain.get("pre_tokenizer")
    if cuts is not None and not isinstance(cuts, dict):
        raise DataError(f"{path}: its pre_tokenizer is damaged")
    analyzer = (cuts or {}).get(MORPHEMES, {})
    if not isinstance(analyzer, dict) or not all(isinstance(value, (str, int)) for value in analyzer.values()):
        raise DataError(f"{path}: what it says of {MORPHEMES} is damaged: {str(analyzer)[:40]!r}")


def _stated(plain: dict[str, Any]) -> Found:
    """Returns the roles that this program wrote into the file; they are all that there are."""
    roles = {role: token["content"] for token in plain.get("added_tokens", []) for role in _list(token.get("roles"))}
    return {role: roles.get(role) for role in ROLES} if roles else {}


def _list(value: Any) -> list[Any]:
    return [each for each in value if each in ROLES] if isinstance(value, list) else []


def _next_to(path: Path) -> Found:
    """Returns what transformers' files in the same folder say; a file that cannot be understood is a DataError."""
    found: list[Found] = []
    newer = False
    for name in (MAP, CONFIG):
        if not (path.parent / name).is_file():
            continue
        plain = _parse(read_limited(path.parent / name), path.parent / name)
        newer = newer or "added_tokens_decoder" in plain
        found.append({role: _content(plain[role], path.parent / name) for role in ROLES if role in plain})
    # transformers has the config's word count where it lists the added tokens too, and the map's in older folders.
    merged: Found = {}
    for each in found if newer else reversed(found):
        merged.update(each)
    return merged


def _content(token: Any, path: Path) -> str | None:
    """Returns a token's text: transformers writes it plainly, or as the ``content`` of an object."""
    content = token.get("content") if isinstance(token, dict) else token
    if content is not None and not isinstance(content, str):
        raise DataError(f"{path}: a special token is {content!r}, not a text")
    return content


def _by_name(file: TokenizerJson, beside: Mapping[str, str | None]) -> Found:
    """Returns the special token of a known name for each role. DataError if a role that `beside` lacks has two."""
    added = file.plain.get("added_tokens", [])
    marked = {token["content"] for token in added if token.get("special") is True}
    found: Found = {}
    for role, names in KNOWN.items():
        there = [name for name in names if name in marked]
        if len(there) > 1 and role not in beside:
            raise DataError(
                f"{file.path}: {' and '.join(there)} can both be its {role}; say which one is in "
                f'{file.path.parent / MAP}: {{"{role}": "{there[0]}"}}'
            )
        if there:
            found[role] = there[0]
    return {**found, **_unknown_of(file)}


def _unknown_of(file: TokenizerJson) -> Found:
    """Returns the token that the model itself puts in the place of what it cannot spell; nothing if it has none."""
    model = file.plain["model"]
    vocab = model["vocab"]
    if isinstance(vocab, list):
        token = model.get("unk_id")
        return {"unk_token": vocab[token][0]} if isinstance(token, int) and 0 <= token < len(vocab) else {}
    token = model.get("unk_token")
    return {"unk_token": token} if isinstance(token, str) and token in vocab else {}


def _complete(found: Found, file: TokenizerJson) -> dict[str, str]:
    """Returns the roles whose tokens exist: one token begins and ends documents if only one of the two is named."""
    known = file.vocabulary.keys() | {token["content"] for token in file.plain.get("added_tokens", [])}
    special = {role: token for role, token in found.items() if token is not None}
    for role in ("bos_token", "eos_token"):
        if role in special and special[role] not in known:
            raise DataError(f"{file.path}: it has no token {special[role]!r}, which is named as its {role}")
    ends = special.get("eos_token") or special.get("bos_token")
    if ends is None:
        raise DataError(
            f"{file.path}: nothing says which token ends a document; name it in {file.path.parent / MAP}, for example "
            '{"eos_token": "</s>"}'
        )
    begins = special.get("bos_token", ends)
    others = {role: special[role] for role in ("unk_token", "pad_token") if special.get(role) in known}
    return {
        "bos_token": begins,
        "eos_token": ends,
        **{role: token for role, token in others.items() if token not in (begins, ends)},
    }


def _without_help(file: TokenizerJson) -> dict[str, str] | None:
    """Returns the special tokens as they would be found in the file alone; None if they would not."""
    try:
        return _complete(_by_name(file, {}), file)
    except DataError:
        return None


def _with_roles(file: TokenizerJson, special: dict[str, str]) -> bytes:
    """Returns the file's content with ``roles`` at its special tokens; one that is not an added token becomes one."""
    roles: dict[str, list[str]] = {}
    for role, token in special.items():
        roles.setdefault(token, []).append(role)
    added = file.plain.setdefault("added_tokens", [])
    there = {token["content"] for token in added}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for name in [name for name in roles if name not in there]:
        added.append({"id": file.vocabulary[name], "content": name, **flags, "special": True})
    for token in added:
        if token["content"] in roles:
            token["roles"] = roles[token["content"]]
    return _dump(file.plain, file.path)


def _dump(plain: dict[str, Any], path: Path) -> bytes:
    try:
        return json.dumps(plain, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"{path}: damaged: half of a surrogate pair in it") from None
