#!/usr/bin/env python3
"""Serves real prompts with the demonstration model and holds the generator's report against the server's counters.

    tests/bench/serve_prompts.py --data SHARED_DATA [--bin build/bin] [--model deploy/models/demo] [--out FOLDER]

1. All 240 MT-bench and Vicuna turns at concurrency 64: the capacity.
2. The same at a Poisson rate of 80 % of it.
3. 500 requests of the Azure conversation trace, lengths scaled to the context.
Of 2 and 3: nobody failed, requests and tokens equal the server's counters exactly, and the server's p50 and p90 of
TTFT and of the whole request lie in the histogram bucket of the client's `_sent` values or the one beside it.
Reports (JSON, HTML) stay in --out. Exit 1 when anything differs.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

GRPC, METRICS = "127.0.0.1:50091", "127.0.0.1:9491"


class Server:
    def __init__(self, args):
        self.process = subprocess.Popen(
            [f"{args.bin}/orreryd", "--model", args.model, "--listen", GRPC, "--metrics-listen", METRICS,
             "--log-level", "warn", "--kv-cache-tokens", "131072"])

    def __enter__(self):
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{METRICS}/ready", timeout=1)
                return self
            except OSError:
                time.sleep(0.1)
        sys.exit("orreryd is not ready after 30 s")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def metrics(self):
        samples = []
        for line in urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10).read().decode().splitlines():
            found = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if found:
                samples.append((found[1], dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")), float(found[3])))
        return samples


def total(samples, name, **labels):
    return sum(value for sample, own, value in samples
               if sample == name and all(own.get(label) in allowed for label, allowed in labels.items()))


def bench(args, name, options):
    report = f"{args.out}/{name}.json"
    subprocess.run([f"{args.bin}/orrery", "bench", "--target", GRPC, "--warmup", "0", "--seed", "1", "--save", report,
                    "--html", f"{args.out}/{name}.html", *options], check=True, timeout=580, stdout=subprocess.DEVNULL)
    with open(report) as file:
        return json.load(file)


def bucket(samples, name, quantile):
    """Index and bound of the histogram's bucket that holds the quantile, and all bounds."""
    counts = {}
    for sample, labels, value in samples:
        if sample == name + "_bucket":
            bound = float(labels["le"].replace("+Inf", "inf"))
            counts[bound] = counts.get(bound, 0) + value
    bounds = sorted(counts)
    index = next(i for i, bound in enumerate(bounds) if counts[bound] >= quantile * counts[bounds[-1]])
    return index, bounds


def check(name, report, samples):
    good = report["failed"] == 0 and report["rejected"] == 0
    print(f"{name}: completed {report['completed']}, failed {report['failed']}")
    for key, counter, labels in [("completed", "orrery_requests_total", {"outcome": ("stop", "length")}),
                                 ("total_input_tokens", "orrery_prompt_tokens_total", {}),
                                 ("total_output_tokens", "orrery_generated_tokens_total", {}),
                                 ("total_cached_tokens", "orrery_prefix_cache_hit_tokens_total", {})]:
        theirs = total(samples, counter, **labels)
        good &= theirs == report[key]
        print(f"  {key}: client {report[key]}, server {theirs:.0f}")
    for histogram, key in [("orrery_time_to_first_token_seconds", "ttft_sent_ms"),
                           ("orrery_request_latency_seconds", "e2el_sent_ms")]:
        for quantile, prefix in [(0.5, "median"), (0.9, "p90")]:
            index, bounds = bucket(samples, histogram, quantile)
            client = report[f"{prefix}_{key}"] / 1e3
            own = next(i for i, bound in enumerate(bounds) if client <= bound)
            good &= abs(index - own) <= 1
            print(f"  {prefix} of {histogram}: server in ({bounds[index - 1] if index else 0:g}, {bounds[index]:g}] s, "
                  f"client {client:.4f} s, {abs(index - own)} buckets apart")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--model", default="deploy/models/demo")
    parser.add_argument("--out", default=tempfile.gettempdir())
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    turns = ["--dataset", "prompts", "--num-requests", "240"]
    for questions in ("mt_bench", "vicuna_bench"):
        turns += ["--path", f"{args.data}/prompts/{questions}_questions.jsonl"]
    trace = ["--dataset", "azure", "--path", f"{args.data}/traces/azure-2023/AzureLLMInferenceTrace_conv.csv.xz",
             "--num-requests", "500", "--scale-lengths", "2048", "--ignore-eos", "--concurrency", "64"]

    with Server(args):
        capacity = bench(args, "capacity", [*turns, "--concurrency", "64"])["request_throughput"]
    rate = round(0.8 * capacity, 2)
    print(f"capacity at concurrency 64: {capacity:.2f} requests/s; Poisson rate {rate}")
    good = True
    for name, options in [("turns", [*turns, "--rate", str(rate)]), ("azure", trace)]:
        with Server(args) as server:
            report = bench(args, name, options)
            good &= check(name, report, server.metrics())
    print("equal" if good else "DIFFERENT")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
