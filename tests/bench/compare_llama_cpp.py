#!/usr/bin/env python3
"""Orrery's CPU engine and server beside llama.cpp, run in turn on one machine: medians, ratios, requirements.

    tests/bench/compare_llama_cpp.py --model DIR --gguf FILE --gguf-q8 FILE --llama-bin DIR [--server-load FILE]
        [--bin build/bin] [--rounds 3] [--threads N] [--clients 16] [--requests 48]

DIR and FILE are one model, as a checkpoint for us and as bf16 and q8_0 GGUF for llama.cpp, whose llama-bench and
(with --server-load, a closed-loop client: PORT CONCURRENCY REQUESTS PROMPT GENERATED VOCAB, printing one JSON line)
llama-server are in --llama-bin. Every round runs every program once, so that drift of the machine meets both sides.
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

PROMPT, GENERATED = 128, 64  # tokens of a request of the server comparison


def output(command, **kwargs):
    result = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def engine(args, weights):
    """tokens/s and shares that engine_bench reports."""
    text = output([f"{args.bin}/engine_bench", args.model, "--weights", weights, "--threads", str(args.threads)])
    found = {}
    for batch, rate, share, host in re.findall(
            r"decode batch\s+(\d+) .*?:\s+([\d.]+) tokens/s.*?, ([\d.]+) of read bandwidth, host (\d+) us", text):
        found[f"decode {batch}"] = float(rate)
        found[f"decode {batch} share"] = float(share)
        found[f"decode {batch} host us"] = float(host)
    rate, of_best, beside = re.search(
        r"prefill 512:\s+([\d.]+) tokens/s.*, ([\d.]+) of the AMX peak, ([\d.]+) of the peak beside", text).groups()
    found["prefill"], found["prefill of best peak"], found["prefill of peak beside"] = map(float, (rate, of_best, beside))
    found["read GB/s"] = float(re.search(r"read ([\d.]+) GB/s", text).group(1))
    found["tile TFLOP/s"] = float(re.search(r"AMX ([\d.]+) TFLOP", text).group(1))
    found["resident MiB"], found["limit MiB"] = map(
        float, re.search(r"resident ([\d.]+) MiB, limit .* = ([\d.]+) MiB", text).groups())
    return found


def llama_bench(args, gguf):
    rows = json.loads(output([f"{args.llama_bin}/llama-bench", "-m", gguf, "-t", str(args.threads), "-p", "512",
                              "-n", "64", "-r", "3", "-o", "json"]))
    return {"prefill" if row["n_prompt"] else "decode 1": statistics.median(row["samples_ts"]) for row in rows}


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def wait_for(url, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if urllib.request.urlopen(url, timeout=2).status == 200:
                return
        except OSError:
            pass
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode} before it was ready")
        time.sleep(0.05)
    sys.exit(f"{url}: not ready after {seconds} s")


def our_server(args):
    """Also returns how long it took to be ready, and its resident size under load."""
    begin = time.monotonic()
    server = subprocess.Popen([f"{args.bin}/orreryd", "--model", args.model, "--listen", "127.0.0.1:50071",
                               "--metrics-listen", "127.0.0.1:9471", "--threads", str(args.threads),
                               "--kv-cache-tokens", "16384", "--log-level", "warn"])
    wait_for("http://127.0.0.1:9471/ready", server)
    ready = time.monotonic() - begin
    report = json.loads(output([f"{args.bin}/orrery", "bench", "--target", "127.0.0.1:50071", "--dataset", "random",
                                "--input-len", str(PROMPT), "--output-len", str(GENERATED), "--ignore-eos",
                                "--temperature", "0", "--num-requests", str(args.requests), "--concurrency",
                                str(args.clients), "--json"]))
    with open(f"/proc/{server.pid}/status") as status:
        resident = int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024
    stop(server)
    if report["failed"] != 0:
        sys.exit(f"{report['failed']} of our requests failed")
    return {"tokens/s": report["output_throughput"], "ttft ms": report["median_ttft_ms"],
            "p99 gap ms": report["p99_itl_ms"], "ready s": ready, "resident MiB": resident}


def their_server(args):
    port = 8471
    server = subprocess.Popen([f"{args.llama_bin}/llama-server", "-m", args.gguf, "-t", str(args.threads), "--port",
                               str(port), "-np", str(args.clients), "-c", str(args.clients * 2 * (PROMPT + GENERATED))],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}/health", server)
    with open(os.path.join(args.model, "config.json")) as config:
        vocab = json.load(config)["vocab_size"]
    report = json.loads(output([sys.executable, args.server_load, str(port), str(args.clients), str(args.requests),
                                str(PROMPT), str(GENERATED), str(vocab)]))
    stop(server)
    if report["err"] != 0:
        sys.exit(f"{report['err']} of llama-server's requests failed")
    return {"tokens/s": report["gen_tok_s"], "ttft ms": report["ttft_ms"][0], "p99 gap ms": report["itl_ms"][2]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--model", "--gguf", "--gguf-q8", "--llama-bin"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--server-load")
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=48)
    args = parser.parse_args()

    runs = {}
    sides = {"ours": lambda: engine(args, "native"), "theirs": lambda: llama_bench(args, args.gguf),
             "ours int8": lambda: engine(args, "int8"), "theirs q8_0": lambda: llama_bench(args, args.gguf_q8)}
    if args.server_load:
        sides.update({"our server": lambda: our_server(args), "their server": lambda: their_server(args)})
    for number in range(args.rounds):
        for side, run in sides.items():
            for name, value in run().items():
                runs.setdefault((side, name), []).append(value)
            print(f"round {number + 1}: {side} done", file=sys.stderr)
    median = {key: statistics.median(values) for key, values in runs.items()}

    def row(case, ours, required, theirs=None, smaller=False, unit="tokens/s"):
        """`required`: least ratio to theirs (most, if smaller is better), or to the limit when theirs is a number."""
        peer = median[theirs] if isinstance(theirs, tuple) else theirs
        ratio = median[ours] / peer if peer else median[ours]
        met = "yes" if (ratio <= required if smaller else ratio >= required) else "NO"
        low, high = min(runs[ours]), max(runs[ours])
        sign = "<=" if smaller else ">="
        print(f"| {case} | {median[ours]:.2f} {unit} ({low:.2f} to {high:.2f}) | {'' if peer is None else f'{peer:.2f}'} "
              f"| {ratio:.2f} | {sign} {required:.2f} | {met} |")

    print(f"read {median['ours', 'read GB/s']:.1f} GB/s, bf16 tiles {median['ours', 'tile TFLOP/s']:.2f} TFLOP/s, "
          f"{args.threads} threads, medians of {args.rounds} rounds")
    print("| case | ours (least to most) | peer or limit | ratio | required | met |\n|---|---|---|---|---|---|")
    row("decode, batch 1, bf16: of read bandwidth", ("ours", "decode 1 share"), 0.80, unit="")
    row("decode, batch 1, bf16 : llama.cpp bf16", ("ours", "decode 1"), 1.2, ("theirs", "decode 1"))
    row("decode, batch 16 : batch 1", ("ours", "decode 16"), 10, ("ours", "decode 1"))
    row("prefill 512, bf16 : llama.cpp bf16", ("ours", "prefill"), 6, ("theirs", "prefill"))
    row("prefill 512, bf16 : llama.cpp q8_0", ("ours", "prefill"), 2.5, ("theirs q8_0", "prefill"))
    row("prefill 512, bf16: of the tile peak beside it (aim)", ("ours", "prefill of peak beside"), 0.5, unit="")
    row("decode, batch 1, int8 : llama.cpp q8_0", ("ours int8", "decode 1"), 1.15, ("theirs q8_0", "decode 1"))
    row("decode, batch 1, int8: of read bandwidth (aim)", ("ours int8", "decode 1 share"), 0.9, unit="")
    row("prefill 512, int8 : llama.cpp q8_0", ("ours int8", "prefill"), 3, ("theirs q8_0", "prefill"))
    row("host time per step at 64 sequences", ("ours", "decode 64 host us"), 100, smaller=True, unit="us")
    row("resident size : 1.15 (weights + KV) + 200 MB", ("ours", "resident MiB"), 1, median["ours", "limit MiB"],
        smaller=True, unit="MiB")
    if args.server_load:
        shape = f"{args.clients} clients, {PROMPT} + {GENERATED} tokens"
        row(f"server, {shape} : llama-server", ("our server", "tokens/s"), 3, ("their server", "tokens/s"))
        row("median TTFT : llama-server", ("our server", "ttft ms"), 1 / 3, ("their server", "ttft ms"), True, "ms")
        row("p99 gap between tokens : llama-server", ("our server", "p99 gap ms"), 1, ("their server", "p99 gap ms"),
            True, "ms")
        row("ready after", ("our server", "ready s"), 5, smaller=True, unit="s")


if __name__ == "__main__":
    main()
