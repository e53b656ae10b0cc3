"""Reads the exported folder with numpy alone, computes the model in f32 by its own code, and prints what it writes.

    python3 check.py --model DIR [--prompt TEXT | --raw TEXT] [--temperature 0.8] [--top-p 0.9] [--seed 1]
    python3 check.py --model DIR --report 100      # how many of so many answers end by themselves, and their lengths

--raw continues bare text; --prompt asks through the chat template.  Nothing here is shared with the trainer but the
tokenizer's code and the grammar.
"""

import argparse
import json
import pathlib
import random
import struct

import numpy as np

import bpe
import chats


def load_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        half = np.frombuffer(body[begin:end], dtype="<u2").astype(np.uint32) << 16
        tensors[name] = half.view(np.float32).reshape(entry["shape"])
    return tensors


class Llama:
    """One sequence at a time with a cache of keys and values."""

    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = load_safetensors(folder / "model.safetensors")
        self.reset()

    def reset(self):
        self.cache = [None] * self.c["num_hidden_layers"]
        self.length = 0

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * self.w[name]

    def rope(self, x, positions):
        half = x.shape[-1] // 2
        angle = positions[:, None] / self.c["rope_theta"] ** (np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)

    def feed(self, ids):
        """Logits after each of `ids`, which follow what was fed before."""
        c, w, d = self.c, self.w, self.c["head_dim"]
        x = w["model.embed_tokens.weight"][np.array(ids)]
        positions = np.arange(self.length, self.length + len(ids))
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = self.norm(x, p + "input_layernorm.weight")
            q, k, v = ((h @ w[p + f"self_attn.{n}_proj.weight"].T).reshape(len(ids), -1, d) for n in "qkv")
            q, k = self.rope(q, positions), self.rope(k, positions)
            if self.cache[i] is not None:
                k, v = np.concatenate((self.cache[i][0], k)), np.concatenate((self.cache[i][1], v))
            self.cache[i] = (k, v)
            group = q.shape[1] // k.shape[1]
            scores = np.einsum("qhd,khd->hqk", q, k.repeat(group, 1)) / np.sqrt(d)
            scores = np.where(np.arange(len(k)) <= positions[:, None], scores, -np.inf)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            y = np.einsum("hqk,khd->qhd", e / e.sum(-1, keepdims=True), v.repeat(group, 1))
            x = x + y.reshape(len(ids), -1) @ w[p + "self_attn.o_proj.weight"].T
            h = self.norm(x, p + "post_attention_layernorm.weight")
            gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
        self.length += len(ids)
        return self.norm(x, "model.norm.weight") @ w["model.embed_tokens.weight"].T


def sample(logits, temperature, top_p, rng):
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits)
    p = np.exp((logits[order] - logits.max()) / temperature)
    p /= p.sum()
    keep = int(np.searchsorted(p.cumsum(), top_p)) + 1
    return int(rng.choice(order[:keep], p=p[:keep] / p[:keep].sum()))


def generate(llama, ids, ends, o, rng):
    """(ids written, ended by itself)."""
    llama.reset()
    logits, written = llama.feed(ids)[-1], []
    while len(written) < o.max_tokens and llama.length < llama.c["max_position_embeddings"]:
        token = sample(logits, o.temperature, o.top_p, rng)
        if token in ends:
            return written, True
        written.append(token)
        logits = llama.feed([token])[-1]
    return written, False


def chat_ids(encoder, messages):
    ids = [encoder.special[chats.BOS]]
    for text, special, _ in chats.chat_segments(messages):
        ids += [encoder.special[text]] if special else encoder.encode(text)
    return ids + [encoder.special[chats.IM_START]] + encoder.encode("assistant\n")


def report(llama, encoder, ends, o, rng):
    source, lengths, ended, matched, asked = random.Random(o.seed), [], 0, 0, 0
    for index in range(o.report):
        question, topic, _ = chats.story_request(source) if index % 2 else (chats.open_request(source), None, None)
        written, stopped = generate(llama, chat_ids(encoder, [("user", question)]), ends, o, rng)
        text = encoder.decode(written)
        lengths.append(len(written))
        ended += stopped
        for word in filter(None, (topic.hero, topic.friend, topic.thing, topic.place) if topic else ()):
            asked, matched = asked + 1, matched + (word in text)
        if index < 4:
            print(f"> {question}\n{text}\n")
    low, middle, high = np.percentile(lengths, (5, 50, 95))
    print(f"{ended} of {o.report} end by themselves; tokens p5 {low:.0f}, p50 {middle:.0f}, p95 {high:.0f}; "
          f"{matched} of {asked} asked-for words are in the story")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--prompt", default="Tell me a story about a dragon and a lost key.")
    parser.add_argument("--raw")
    parser.add_argument("--report", type=int)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--max-tokens", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    encoder = bpe.Encoder(json.loads((o.model / "tokenizer.json").read_text(encoding="utf-8")))
    llama, rng = Llama(o.model), np.random.default_rng(o.seed)
    ends = json.loads((o.model / "generation_config.json").read_text())["eos_token_id"]
    if o.report:
        return report(llama, encoder, ends, o, rng)
    ids = [encoder.special[chats.BOS]] + encoder.encode(o.raw) if o.raw is not None else chat_ids(
        encoder, [("user", o.prompt)])
    written, stopped = generate(llama, ids, ends, o, rng)
    print((o.raw or "") + encoder.decode(written))
    print(f"[{len(written)} tokens, {'ended by itself' if stopped else 'cut'}]")


if __name__ == "__main__":
    main()
