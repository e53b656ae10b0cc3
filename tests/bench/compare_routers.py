#!/usr/bin/env python3
"""Every route policy in front of 16 workers in simulated time: the tables of tests/bench/results/routers.md.

    tests/bench/compare_routers.py --data SHARED_DATA [--orrery build/bin/orrery] [--requests 100000] [--seeds 5]
        [--routers all|R,R,...] [--keep FOLDER] [--jobs 1] > tests/bench/results/routers.md

azure: lengths of the trace, gamma arrivals with its own coefficient of variation, at 0.6, 0.85 and 1.05 of the highest
rate at which round-robin is stable. mooncake: the trace's own prompts, shared prefixes included, at the same shares.
"""
import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess

from compare_policies import LOADS, PROFILES, STABLE_GROWTH, TRACES, Runs, sized

WORKERS = 16
COLUMNS = [("request_goodput", "goodput/s"), ("slo_attainment", "in SLO"), ("p50_ttft_ms", "TTFT p50 ms"),
           ("p99_ttft_ms", "TTFT p99"), ("p50_tpot_ms", "TPOT p50 ms"), ("p99_tpot_ms", "TPOT p99"),
           ("imbalance_mean", "imbalance tokens"), ("hit_ratio", "prefix hits"), ("rejected", "refused")]
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}  # 95 %, by number of seeds
# What moves KV between workers is compared elsewhere.
LEFT_OUT = {"gate-and-route"}


def base(args, case):
    form, path = TRACES[case]
    return ["--trace", os.path.join(args.data, path), "--trace-format", form, "--arrival", "gamma",
            "--cost-profile", os.path.join(args.data, "profiles/linear_cost_fits.json") + "#" + PROFILES["8b"],
            "--workers", str(WORKERS), "--max-num-seqs", "1024", "--max-tokens", "4096", "--slo", "ttft=1000,tpot=50",
            "--predictor", "empirical"] + ([] if case == "mooncake" else ["--no-prefix-cache"])


def highest_stable_rate(runs, args, case):
    """Of round-robin, to 2 %: queues grow by less than a hundredth of the arrivals, over all seeds."""
    def stable(rate):
        growth = [runs(base(args, case) + sized(args.requests) +
                       ["--rate", f"{rate:.4g}", "--router", "round-robin", "--seed", str(seed)])["waiting_growth"]
                  for seed in range(args.seeds)]
        return sum(growth) / len(growth) < STABLE_GROWTH
    low, high = 16.0, 16.0
    while stable(high):
        low, high = high, high * 2
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def measure(runs, args, case, rate, router):
    out = runs(base(args, case) + sized(args.requests) +
               ["--rate", f"{rate:.4g}", "--seeds", str(args.seeds), "--compare", router])
    for run in out["runs"]:
        run["hit_ratio"] = run["total_cached_tokens"] / max(1, run["total_input_tokens"])
    metrics = {}
    for key, _ in COLUMNS:
        values = [run[key] for run in out["runs"] if run[key] is not None]
        if values:
            mean = statistics.fmean(values)
            half = STUDENT.get(len(values), 2) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            metrics[key] = (mean, mean + half)
    return router, metrics


def table(title, rows):
    print(f"\n### {title}\n")
    print("| router | " + " | ".join(name for _, name in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for router, metrics in rows:
        cells = []
        for key, _ in COLUMNS:
            mean, high = metrics.get(key, (None, None))
            cells.append("-" if mean is None else f"{mean:.4g} ±{high - mean:.2g}")
        print(f"| {router} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orrery", default="build/bin/orrery")
    parser.add_argument("--data", required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--routers", default="all")
    parser.add_argument("--cases", default="azure,mooncake")
    parser.add_argument("--keep", default="")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    runs = Runs(args)
    routers = args.routers.split(",")
    if args.routers == "all":
        listed = json.loads(subprocess.run([args.orrery, "policies", "--json"], capture_output=True, text=True,
                                           check=True).stdout)
        routers = [p["name"] for p in listed if p["kind"] == "route" and p["name"] not in LEFT_OUT]
    print(f"{WORKERS} workers (Llama-3-8B on an H200 each), {args.requests} requests, the first {args.requests // 10} "
          f"dropped, {args.seeds} seeds, mean ± half of the 95 % interval. SLO: TTFT 1 s, TPOT 50 ms.")
    for case in args.cases.split(","):
        rate = highest_stable_rate(runs, args, case)
        print(f"\n## {case}: round-robin is stable up to {rate:.4g} requests/s")
        for load in LOADS:
            with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                rows = list(pool.map(lambda router: measure(runs, args, case, load * rate, router), routers))
            table(f"{load} of it: {load * rate:.4g} requests/s", rows)


if __name__ == "__main__":
    main()
