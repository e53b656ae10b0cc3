"""Trains the tokenizer of the demonstration model and writes tokenizer.json in the Hugging Face form.

    python3 train_tokenizer.py --out DIR [--documents 20000] [--vocab 2048] [--seed 7]
"""

import argparse
import json
import pathlib
import random

import bpe
import chats

SPECIAL = [chats.EOS, chats.BOS, chats.IM_START, chats.IM_END]


def tokenizer_json(merges):
    vocab = {token: i for i, token in enumerate(SPECIAL)}
    for symbol in [bpe.ALPHABET[b] for b in range(256)] + [a + b for a, b in merges]:
        vocab.setdefault(symbol, len(vocab))
    bos_id = vocab[chats.BOS]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for t in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": chats.BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": chats.BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": chats.BOS, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {chats.BOS: {"id": chats.BOS, "ids": [bos_id], "tokens": [chats.BOS]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--documents", type=int, default=20000)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    texts = [text for _ in range(options.documents) for text, special, _ in chats.document(rng) if not special]
    tokenizer = tokenizer_json(bpe.train(texts, options.vocab - len(SPECIAL) - 256))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "tokenizer.json"
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    encoder = bpe.Encoder(tokenizer)
    sample = texts[:3000]
    ids = sum(len(encoder.encode(t)) for t in sample)
    assert all(encoder.decode(encoder.encode(t)) == t for t in sample)
    print(f"{len(tokenizer['model']['vocab'])} tokens, {sum(map(len, sample)) / ids:.2f} characters per token")


if __name__ == "__main__":
    main()
