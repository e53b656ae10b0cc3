#!/usr/bin/env python3
"""Writes hf_cases.json: what the Python package `tokenizers` answers for small tokenizers, pre-tokenizers and
normalizers on random texts. The C++ tests compare against it. Run again only to add cases:
    pip install tokenizers==0.23.* && ./make_hf_cases.py > hf_cases.json"""
import json, random, sys
import tokenizers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

rng = random.Random(20240501)
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?%s+|\p{N}%s| ?[^\s\p{L}%s\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DEEPSEEK3 = (r'''[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+'''
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def literal(text, behavior, invert=False):
    return {"type": "Split", "pattern": {"String": text}, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def byte_level(prefix, regex):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


PRE_TOKENIZERS = [
    split(GPT2), split(CL100K % (r"\p{L}", "", "")), split(CL100K % (r"\p{L}", "{1,3}", "")),
    split(CL100K % (r"[\p{L}\p{M}]", "", r"\p{M}")),
    sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3)),
    sequence(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
             {"type": "Digits", "individual_digits": True}),
    sequence(split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$")),
    split(r"\s+$"),
    byte_level(False, True), byte_level(True, True), byte_level(True, False),
    sequence(split(CL100K % (r"\p{L}", "{1,3}", "")), byte_level(False, False)),
    {"type": "Digits", "individual_digits": False}, {"type": "Digits", "individual_digits": True},
    metaspace("always", True), metaspace("always", False), metaspace("first", False), metaspace("never", True),
    literal(" ", "MergedWithPrevious"), literal(" ", "MergedWithNext"), literal(" ", "Contiguous"),
    literal(" ", "Removed"), literal("e", "Removed", True), literal(" ", "Isolated"),
]

NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Prepend", "prepend": "\u2581"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    {"type": "Replace", "pattern": {"String": "aa"}, "content": "b"},
    {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Prepend", "prepend": "\u2581"},
                                         {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
]

# Blocks that no version of Unicode since 9 changed.
LETTERS = ["abcdefgEFGH", "éèêñüßÅŒ", "АбвгдЖ", "αβγδΣς", "中文字漢", "かなカナ", "한글가각", "אבג", "مرحبا", "क्षि"]
OTHERS = [" ", "  ", "   ", "\n", "\r\n", "\t", "\n\n", "\u3000", "\u00a0", "'s", "'LL", "'re", "'D", "'\u017f", "''", "!", "?!",
          "...", "<", ">", "_", "-", "(", "$", "+", "1", "23", "456", "7890", "½", "Ⅷ", "٣", "\u0301", "\u0323\u0301", "\u0301\u0323",
          "\u200d", "😀", "👍🏽", "\u1100\u1161\u11a8", "ﬁ", "㎏", "①", "Ｆ", "\u0000", "\u2581", "、", "。", "aa", "İ"]


def text(max_parts=9):
    out = []
    for _ in range(rng.randint(0, max_parts)):
        if rng.random() < 0.5:
            letters = rng.choice(LETTERS)
            out.append("".join(rng.choice(letters) for _ in range(rng.randint(1, 5))))
        else:
            out.append(rng.choice(OTHERS))
    return "".join(out)


def pre_tokenizer_cases(spec):
    base = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": spec, "post_processor": None,
            "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tool = Tokenizer.from_str(json.dumps(base)).pre_tokenizer
    is_bytes = "ByteLevel" in json.dumps(spec)
    cases = []
    for _ in range(30):
        t = text()
        pieces = [p for p, _ in tool.pre_tokenize_str(t)]
        if is_bytes:
            pieces = [decoders.ByteLevel().decode([p]) for p in pieces]
        cases.append([t, pieces])
    return cases


def normalizer_cases(spec):
    base = {"version": "1.0", "added_tokens": [], "normalizer": spec, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tool = Tokenizer.from_str(json.dumps(base)).normalizer
    return [[t, tool.normalize_str(t)] for t in (text() for _ in range(30))]


def added(id, content, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    token.update(flags)
    return token


def merges_over(pieces, count):
    pieces, merges = list(pieces), []
    while len(merges) < count:
        pair = [rng.choice(pieces), rng.choice(pieces)]
        if pair not in merges:
            merges.append(pair)
            pieces.append("".join(pair))
    return merges


def tokenizer_specs():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for pre in (PRE_TOKENIZERS[8], PRE_TOKENIZERS[11]):
        vocab = {c: i for i, c in enumerate(alphabet)}
        merges = merges_over(["a", "b", "c", "e", "Ġ", "Ã", "©", "ä", "¸"], 40)
        for left, right in merges:
            vocab.setdefault(left + right, len(vocab))
        n = len(vocab)
        tokens = [added(n, "<|x|>"), added(n + 1, "<|xy|>", lstrip=True), added(n + 2, "<y>", rstrip=True, special=False),
                  added(n + 3, "zz", single_word=True, special=False), added(n + 4, "   ", normalized=True, special=False)]
        yield {"version": "1.0", "added_tokens": tokens, "normalizer": {"type": "NFC"}, "pre_tokenizer": pre,
               "post_processor": byte_level(True, True), "decoder": byte_level(True, True),
               "model": {"type": "BPE", "unk_token": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}}
    bar = "\u2581"
    for normalized, pre, dec in (
            (True, None, {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": bar}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
            (False, metaspace("first", False), {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": bar}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})):
        vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
        for b in range(256):
            vocab["<0x%02X>" % b] = len(vocab)
        letters = [bar, "a", "b", "c", "d", "e", "é", "中", "к"]
        for c in letters:
            vocab[c] = len(vocab)
        merges = merges_over(letters, 40)
        for left, right in merges:
            vocab.setdefault(left + right, len(vocab))
        n = len(vocab)
        tokens = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>", rstrip=True), added(n, "<|x|>", lstrip=True),
                  added(n + 1, "zz", normalized=True, special=False)]
        yield {"version": "1.0", "added_tokens": tokens,
               "normalizer": NORMALIZERS[-1] if normalized else None, "pre_tokenizer": pre,
               "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                  {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                                  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                                  "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                                                     "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
               "decoder": dec,
               "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab, "merges": merges}}


def tokenizer_cases(spec):
    tool = Tokenizer.from_str(json.dumps(spec))
    marks = [t["content"] for t in spec["added_tokens"]] + [" ", "  ", "    ", "x"]
    cases = []
    for _ in range(50):
        parts = [rng.choice([text(3), "".join(rng.choice("abcde é中к") for _ in range(rng.randint(1, 40)))]) + rng.choice(marks)
                 for _ in range(rng.randint(0, 5))]
        t = "".join(parts)
        ids = tool.encode(t).ids
        cases.append([t, ids, tool.decode(ids, skip_special_tokens=True)])
    return cases


json.dump({"package": "tokenizers " + tokenizers.__version__,
           "pre_tokenizers": [{"json": s, "cases": pre_tokenizer_cases(s)} for s in PRE_TOKENIZERS],
           "normalizers": [{"json": s, "cases": normalizer_cases(s)} for s in NORMALIZERS],
           "tokenizers": [{"json": s, "cases": tokenizer_cases(s)} for s in tokenizer_specs()]},
          sys.stdout, ensure_ascii=False, separators=(",", ":"))
print()
