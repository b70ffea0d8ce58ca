"""CLIP's vocabulary: the symbols, their numbers, and the merges that build words from bytes.

The package carries CLIP's own list. A base model that brings its own `tokenizer/` folder is read from there.
"""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from brushwork.atomic import write_text
from brushwork.errors import UserError
from brushwork.models.folder import read_json
from brushwork.places import packaged

START = "<|startoftext|>"
END = "<|endoftext|>"
PAD_OF_BIG_G = "!"
"""SDXL's second encoder saw zeros after the end of a text, and zero is the number of the byte "!"."""

NUM_MERGES = 49152 - 256 - 2
"""CLIP uses so many of the 262,144 merges in its list."""


@dataclass(frozen=True)
class Vocabulary:
    """Symbols with their numbers, merges in order of rank, and the symbol that fills up a chunk."""

    ids: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    padding: str = END

    @property
    def start_id(self) -> int:
        return self.ids[START]

    @property
    def end_id(self) -> int:
        return self.ids[END]

    @property
    def pad_id(self) -> int:
        return self.ids[self.padding]

    def __len__(self) -> int:
        return len(self.ids)


@cache
def packaged_vocabulary(*, padding: str = END, num_merges: int = NUM_MERGES) -> Vocabulary:
    """CLIP's vocabulary, numbered as CLIP's own code does it. Fewer merges: shorter list, words in more pieces."""
    packed = packaged("clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    merges = tuple(_pair(line) for line in lines[1 : num_merges + 1])
    return Vocabulary(number_symbols(merges), merges, padding)


def number_symbols(merges: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """256 bytes, 256 bytes that end a word, one symbol for each merge, start, end: counted from 0."""
    symbols = _byte_symbols()
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges), START, END]
    return {name: number for number, name in enumerate(names)}


def _byte_symbols() -> list[str]:
    """One visible character for each byte: bytes that are visible in Latin-1 stand for themselves and come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + index) for index in range(256 - len(visible))]


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a base model's `tokenizer` folder: vocab.json with merges.txt, or tokenizer.json."""
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        ids: dict[str, int] = dict(read_json(folder / "vocab.json"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = tuple(_pair(line) for line in lines if line.strip() and not line.startswith("#version"))
        added = set(read_json(folder / "added_tokens.json"))
    elif (folder / "tokenizer.json").is_file():
        whole = read_json(folder / "tokenizer.json")
        ids = whole["model"]["vocab"]
        merges = tuple(_pair(merge) for merge in whole["model"]["merges"])
        added = {token["content"] for token in whole.get("added_tokens", [])}
    else:
        raise UserError(
            f"{folder} holds neither vocab.json with merges.txt nor tokenizer.json.",
            fix="download the base model again, with its tokenizer folders",
        )
    for name in [START, END, *added]:
        if name not in ids:
            known = "is missing from" if name in (START, END) else "was added to"
            raise UserError(f"the token {name} {known} the vocabulary in {folder}.", fix="use CLIP's own vocabulary")
    return Vocabulary(ids, merges, _padding(folder, ids))


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the files of a `tokenizer` folder as diffusers and transformers read them."""
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": vocabulary.padding}
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "add_prefix_space": False}
    merges = "".join(f"{left} {right}\n" for left, right in vocabulary.merges)
    write_text(folder / "vocab.json", json.dumps(vocabulary.ids, ensure_ascii=False))
    write_text(folder / "merges.txt", "#version: 0.2\n" + merges)
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2))


def _padding(folder: Path, ids: dict[str, int]) -> str:
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        token = read_json(folder / file).get("pad_token")
        name = token["content"] if isinstance(token, dict) else token
        if name is not None:
            if name not in ids:
                raise UserError(
                    f"the padding {name!r} of {folder / file} is not in its vocabulary.", fix="use " + END
                )
            return str(name)
    return END


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split() if isinstance(merge, str) else merge
    return left, right
