#!/usr/bin/env python3
"""Every batch policy on the same traces in simulated time: the table of tests/bench/results/policies.md.

    tests/bench/compare_policies.py --data SHARED_DATA [--orrery build/bin/orrery] [--requests 50000] [--seeds 5]
        [--policies all|P,P,...] [--oracle P,P,...] [--cases azure-8b,mooncake-8b,azure-70b,mooncake-70b]
        [--keep FOLDER] [--jobs 1] > tests/bench/results/policies.md

Lengths are those of the trace, drawn with replacement where it is too short; arrivals are gamma with the trace's own
coefficient of variation. For each case the highest rate at which fcfs is stable is found by bisection; then all
policies meet the same requests at 0.6, 0.85 and 1.05 of it. Policies see lengths as a server does, learnt from what
ended (--predictor empirical); the rows named by --oracle are run once more with the true lengths.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys

TRACES = {"azure": ("azure", "traces/azure-2023/AzureLLMInferenceTrace_conv.csv.xz"),
          "mooncake": ("mooncake", "traces/mooncake/conversation_trace.jsonl.xz")}
PROFILES = {"8b": "h200_sxm/llama3-8b/tp1/bfloat16", "70b": "h100_sxm/llama3-70b/tp4/bfloat16"}
LOADS = (0.6, 0.85, 1.05)
# Waiting requests may grow by this share of the arrivals and still count as stable.
STABLE_GROWTH = 0.01
COLUMNS = [("mean_ttft_ms", "TTFT mean ms"), ("p99_ttft_ms", "TTFT p99"), ("max_ttft_ms", "TTFT max"),
           ("mean_tpot_ms", "TPOT mean ms"), ("p99_tpot_ms", "TPOT p99"), ("mean_e2el_ms", "E2E mean ms"),
           ("p99_e2el_ms", "E2E p99"), ("request_goodput", "goodput/s"), ("preemptions", "preemptions"),
           ("jain_fairness", "Jain")]


class Runs:
    """Runs of `orrery simulate`, each made once: --keep remembers them."""

    def __init__(self, args):
        self.args = args
        if args.keep:
            os.makedirs(args.keep, exist_ok=True)

    def __call__(self, extra):
        command = [self.args.orrery, "simulate", *extra, "--json"]
        kept = os.path.join(self.args.keep, hashlib.sha256(" ".join(command).encode()).hexdigest()[:20] + ".json") \
            if self.args.keep else ""
        if kept and os.path.exists(kept):
            return json.load(open(kept, encoding="utf-8"))
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        if kept:
            with open(kept, "w", encoding="utf-8") as file:
                file.write(result.stdout)
        return json.loads(result.stdout)


def base(args, case):
    trace, profile = case.split("-")
    form, path = TRACES[trace]
    # Mooncake's shared prefixes would make the pool's state, not the policy, the subject.
    return ["--trace", os.path.join(args.data, path), "--trace-format", form, "--arrival", "gamma",
            "--cost-profile", os.path.join(args.data, "profiles/linear_cost_fits.json") + "#" + PROFILES[profile],
            "--no-prefix-cache", "--max-num-seqs", "1024", "--max-tokens", "4096", "--slo", "ttft=1000,tpot=50"]


def sized(requests):
    return ["--num-requests", str(requests), "--warmup", str(requests // 10)]


def highest_stable_rate(runs, args, case):
    """The highest rate at which fcfs keeps up, to 1 %: over all seeds, since one bursty run alone deceives by 10 %."""
    def stable(rate):
        growth = [runs(base(args, case) + sized(args.requests) +
                       ["--rate", f"{rate:.4g}", "--scheduler", "fcfs", "--seed", str(seed)])["waiting_growth"]
                  for seed in range(args.seeds)]
        return sum(growth) / len(growth) < STABLE_GROWTH
    low, high = 0.1, 0.1
    while stable(high):
        low, high = high, high * 2
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def table(title, rows):
    print(f"\n### {title}\n")
    print("| policy | " + " | ".join(name for _, name in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for policy, metrics in rows:
        cells = []
        for key, _ in COLUMNS:
            if key not in metrics:
                cells.append("-")
                continue
            mean, low, high = metrics[key]
            cells.append(f"{mean:.4g}" + (f" ±{high - mean:.2g}" if high is not None else ""))
        print(f"| {policy} | " + " | ".join(cells) + " |")
    sys.stdout.flush()


def compare(runs, args, case, rate, policies, predictor):
    def one(policy):
        out = runs(base(args, case) + sized(args.requests) +
                   ["--rate", f"{rate:.4g}", "--seeds", str(args.seeds), "--compare", policy, "--predictor", predictor])
        metrics = {s["metric"]: (s["mean"], s["ci95_low"], s["ci95_high"]) for s in out["summary"]}
        name = policy if predictor != "oracle" else f"{policy} (oracle)"
        return name, metrics
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(one, policies))


def verdict(rows):
    """Which policies gain a quarter in goodput or mean E2E without harm to the tail."""
    named = dict(rows)
    fcfs = named["fcfs"]
    lines = []
    for policy, m in rows:
        if policy == "fcfs" or "mean_e2el_ms" not in m:
            continue
        goodput = m["request_goodput"][0] / fcfs["request_goodput"][0] if fcfs["request_goodput"][0] > 0 else 1
        e2e = fcfs["mean_e2el_ms"][0] / m["mean_e2el_ms"][0]
        tail = m["p99_ttft_ms"][0] / fcfs["p99_ttft_ms"][0]
        longest = m["max_ttft_ms"][0] / fcfs["max_ttft_ms"][0]
        if max(goodput, e2e) >= 1.25 and tail <= 1.5 and longest <= 10:
            lines.append(f"{policy} (goodput x{goodput:.2f}, mean E2E /{e2e:.2f}, p99 TTFT x{tail:.2f}, "
                         f"longest wait x{longest:.2f})")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orrery", default="build/bin/orrery")
    parser.add_argument("--data", required=True)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--policies", default="all")
    parser.add_argument("--oracle", default="mc-sf,a-min,sorted-f")
    parser.add_argument("--cases", default="azure-8b,mooncake-8b,azure-70b,mooncake-70b")
    parser.add_argument("--keep", default="")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    runs = Runs(args)
    policies = args.policies.split(",")
    if args.policies == "all":
        listed = json.loads(subprocess.run([args.orrery, "policies", "--json"], capture_output=True, text=True,
                                           check=True).stdout)
        policies = [p["name"] for p in listed if p["kind"] == "batch"]
    oracle = [p for p in args.oracle.split(",") if p in policies]
    print(f"{args.requests} requests, the first {args.requests // 10} dropped, {args.seeds} seeds, mean ± half of the 95 % "
          "interval. SLO: TTFT 1 s, TPOT 50 ms. One worker.")
    for case in args.cases.split(","):
        rate = highest_stable_rate(runs, args, case)
        print(f"\n## {case}: fcfs is stable up to {rate:.4g} requests/s")
        for load in LOADS:
            rows = compare(runs, args, case, load * rate, policies, "empirical")
            table(f"{load} of it: {load * rate:.4g} requests/s",
                  rows + compare(runs, args, case, load * rate, oracle, "oracle"))
            if load == 0.85:
                found = verdict(rows)
                print("\nA quarter better in goodput or mean E2E at no more than 1.5x the p99 TTFT: " +
                      ("; ".join(found) if found else "none") + ".")


if __name__ == "__main__":
    main()
