#!/usr/bin/env python3
"""What PyTorch reaches on the cases of gpu_kernel_bench, in the same run: its fused attention (cuDNN's and
FlashAttention-2's) for prompts and, over contiguous KV, for decode, and its matrix product for few rows.

    tests/gpu/peers.py

Prints one JSON object of rows named as gpu_kernel_bench names them.
"""
import json
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

COLD_BYTES = 192 << 20
BACKENDS = {"torch cuDNN": SDPBackend.CUDNN_ATTENTION, "torch FlashAttention-2": SDPBackend.FLASH_ATTENTION}


def time_us(call, repeats, rounds=7):
    """Of one call; `repeats` of them are recorded as one launch, so that the host is not what is timed."""
    for i in range(3):
        call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(repeats):
            call(i)
    times = []
    for _ in range(rounds + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / repeats)
    return statistics.median(times[1:])


def normal(*shape):
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def attention(batch, queries, tokens, q_heads, kv_heads, dim, causal):
    """Microseconds by peer. Queries are the last of the tokens."""
    sets = max(2, COLD_BYTES // (batch * tokens * kv_heads * dim * 4) + 1)
    q = normal(batch, q_heads, queries, dim)
    keys = [normal(batch, kv_heads, tokens, dim) for _ in range(sets)]
    values = [normal(batch, kv_heads, tokens, dim) for _ in range(sets)]
    result = {}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                result[name] = time_us(lambda i: F.scaled_dot_product_attention(
                    q, keys[i % sets], values[i % sets], is_causal=causal, enable_gqa=True), 10)
        except RuntimeError as error:
            result[name] = None
            result[name + ", why not"] = str(error).splitlines()[0][:200]
    return result


def product(rows, n, k):
    sets = max(2, COLD_BYTES // (n * k * 2) + 1)
    x, weights = normal(rows, k), [normal(n, k) for _ in range(sets)]
    return {"torch.matmul": time_us(lambda i: F.linear(x, weights[i % sets]), 20)}


def cases():
    decode = [(1, 4096), (8, 4096), (32, 1024), (32, 2048), (32, 4096), (64, 1024), (64, 2048), (64, 4096), (128, 1024),
              (256, 1024)]
    for batch, context in decode:
        yield {"kernel": "decode attention", "case": f"32/8x128 b{batch} ctx{context}",
               "peers_us": attention(batch, 1, context, 32, 8, 128, False)}
    for tokens in (512, 1024, 2048, 4096, 8192):
        yield {"kernel": "prefill attention", "case": f"32/8x128 {tokens} tokens",
               "peers_us": attention(1, tokens, tokens, 32, 8, 128, True)}
    for m in (1, 4, 8):
        for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096), (4096, 1024)):
            yield {"kernel": "skinny product", "case": f"m{m} {n}x{k}", "peers_us": product(m, n, k)}


def main():
    print('{"torch": ', json.dumps(torch.__version__), ', "rows": [', sep="", end="")
    for i, row in enumerate(cases()):
        # At once: who is cut off has said what was known.
        print("," if i else "", json.dumps(row), sep="\n", end="", flush=True)
    print("\n]}")


if __name__ == "__main__":
    main()
