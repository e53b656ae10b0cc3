#!/usr/bin/env python3
"""Writes a checkpoint of random weights in a published model's shape: enough for speed, useless for text.

    tests/gpu/random_model.py llama-3-8b|llama-3.2-1b|qwen3-0.6b DIR

Needs numpy. One block of random bf16 values with standard deviation 0.02 fills all matrices, each from another place.
"""
import json
import pathlib
import struct
import sys

import numpy

LLAMA3 = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
SHAPES = {
    "llama-3-8b": dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=4096, intermediate_size=14336,
                       num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                       vocab_size=128256, rope_theta=500000.0, max_position_embeddings=8192, tie_word_embeddings=False),
    "llama-3.2-1b": dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=2048, intermediate_size=8192,
                         num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
                         vocab_size=128256, rope_theta=500000.0, rope_scaling=LLAMA3, max_position_embeddings=131072,
                         tie_word_embeddings=True),
    "qwen3-0.6b": dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_size=1024, intermediate_size=3072,
                       num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
                       vocab_size=151936, rope_theta=1e6, max_position_embeddings=40960, tie_word_embeddings=True),
}


def tensors(c):
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", [c["vocab_size"], hidden]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, shape in (("q", [q, hidden]), ("k", [kv, hidden]), ("v", [kv, hidden]), ("o", [hidden, q])):
            yield f"{at}self_attn.{name}_proj.weight", shape
        if c["model_type"] == "qwen3":
            yield f"{at}self_attn.q_norm.weight", [c["head_dim"]]
            yield f"{at}self_attn.k_norm.weight", [c["head_dim"]]
        for name, shape in (("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner])):
            yield f"{at}mlp.{name}_proj.weight", shape
        yield f"{at}input_layernorm.weight", [hidden]
        yield f"{at}post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [c["vocab_size"], hidden]


def bf16(values):
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        raise SystemExit(__doc__)
    config, folder = SHAPES[sys.argv[1]], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, "torch_dtype": "bfloat16", "hidden_act": "silu", "rms_norm_eps": 1e-5, "bos_token_id": 1,
              "eos_token_id": 2}
    header, offset = {}, 0
    for name, shape in tensors(config):
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # A prime number of values: rows do not repeat with the block.
    block = bf16(numpy.random.default_rng(3).standard_normal(33554467, numpy.float32) * 0.02).tobytes()
    ones = bf16(numpy.ones(config["hidden_size"]))
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        begin = 0
        for entry in header.values():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            if len(entry["shape"]) == 1:
                out.write(ones[:entry["shape"][0]].tobytes())
                continue
            while left > 0:
                piece = min(left, len(block) - begin)
                out.write(memoryview(block)[begin:begin + piece])
                left -= piece
                begin = (begin + piece) % len(block)
    # Last: who finds it finds all.
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    print(f"{sys.argv[1]}: {offset / 1e9:.2f} GB in {folder}")


if __name__ == "__main__":
    main()
