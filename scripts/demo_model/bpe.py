"""Byte-level byte-pair encoding: the alphabet, the splitter, the trainer and the encoder.

Follows the published description of the GPT-2 tokenizer: text is split by one regular expression, the bytes of each
piece are written as printable characters, and learned merges join neighbours, lowest rank first.
"""

import collections
import re

# Python's \w holds digits and the underscore, hence the double negations for "letter" and "neither".
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_alphabet():
    """One printable character for each of the 256 bytes; printable Latin-1 stands for itself."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(printable))
    return table


ALPHABET = byte_alphabet()


def train(texts, merge_count):
    """Learns `merge_count` merges: always the most frequent pair, the alphabetically first on ties."""
    counts = collections.Counter(piece for text in texts for piece in SPLIT.findall(text))
    pieces = [([ALPHABET[b] for b in piece.encode()], n) for piece, n in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for index, (symbols, n) in enumerate(pieces):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += n
            where[pair].add(index)
    merges = []
    while len(merges) < merge_count:
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for index in where.pop(best):
            symbols, n = pieces[index]
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] -= n
            symbols[:] = merge(symbols, best)
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
                where[pair].add(index)
        pairs = +pairs
    return merges


def merge(symbols, pair):
    """Joins every occurrence of `pair`, left to right."""
    joined, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            joined.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return joined


class Encoder:
    """Ids of text and text of ids, from the fields of a tokenizer.json."""

    def __init__(self, tokenizer):
        model = tokenizer["model"]
        self.ids = model["vocab"]
        self.special = {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
        self.ranks = {tuple(m.split(" ")): r for r, m in enumerate(model["merges"])}
        self.tokens = {i: t for t, i in self.ids.items()}
        self.bytes_of = {c: b for b, c in ALPHABET.items()}
        self.cache = {}

    def piece(self, piece):
        found = self.cache.get(piece)
        if found is None:
            symbols = [ALPHABET[b] for b in piece.encode()]
            while len(symbols) > 1:
                best = min(zip(symbols, symbols[1:]), key=lambda p: self.ranks.get(p, 1 << 30))
                if best not in self.ranks:
                    break
                symbols = merge(symbols, best)
            found = [self.ids[s] for s in symbols]
            if len(self.cache) < 100000:
                self.cache[piece] = found
        return found

    def encode(self, text):
        """Ordinary text only: the names of special tokens in it are text too."""
        return [i for piece in SPLIT.findall(text) for i in self.piece(piece)]

    def decode(self, ids):
        special = {i: t for t, i in self.special.items()}
        out = b""
        for i in ids:
            out += special[i].encode() if i in special else bytes(self.bytes_of[c] for c in self.tokens[i])
        return out.decode("utf-8", "replace")
