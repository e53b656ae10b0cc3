#!/usr/bin/env python3
"""Routers in front of workers that step behind one barrier: the tables of tests/bench/results/barrier.md.

    tests/bench/barrier.py [--orrery build/bin/orrery] [--seeds 3] [--jobs 1]
        [--only saturated|lognormal|lookahead|limited] > tests/bench/results/barrier.md

Saturated: a pool of four requests for each worker, 1500 steps of warm-up, 3000 measured, prompts resident once placed,
outputs geometric with mean 200. Arrival-limited: Poisson at a share of what the slots can carry. The figures beside
ours are those of another simulator, which shares no code with this one (its authors': arXiv:2601.17855).
"""
import argparse
import concurrent.futures
import json
import math
import os
import random
import subprocess
import sys
import tempfile

# (G, B): idle of fcfs in per cent, imbalance of fcfs over that of bf-io without and with an age bound of 50 steps.
UNIFORM = {(4, 32): (8.4, 7.1, 5.2), (8, 32): (11.2, 5.0, 3.6), (8, 72): (7.6, 9.0, 8.1), (16, 32): (13.6, 4.7, 3.5),
           (16, 72): (9.8, 8.9, 8.5), (16, 128): (7.1, 13.1, 13.0), (32, 72): (11.2, 9.0, 9.2),
           (64, 72): (12.8, 9.8, 9.5)}
LOGNORMAL = {(16, 72): (20.2, 14.1, 8.4), (32, 72): (21.8, 13.7, None)}
# rho: idle in per cent.
LIMITED = {0.5: {"round-robin": 20.9, "jsq-count": 13.4, "power-of-two": 7.8, "jsq-tokens": 3.0, "bf-io": 2.7},
           0.8: {"round-robin": 16.9, "jsq-count": 10.9, "power-of-two": 4.9, "jsq-tokens": 1.8, "bf-io": 1.6},
           0.95: {"round-robin": 11.7, "jsq-count": 9.9, "power-of-two": 5.7, "jsq-tokens": 3.9, "bf-io": 1.5}}
ROWS = 40_000


def write_trace(folder, name, prompt):
    """Prompts drawn by `prompt`, outputs geometric with mean 200."""
    draw = random.Random(name)
    path = os.path.join(folder, name + ".csv")
    with open(path, "w", encoding="utf-8") as file:
        file.write("num_prefill_tokens,num_decode_tokens\n")
        for _ in range(ROWS):
            output = 1 + int(math.log(1 - draw.random()) / math.log(1 - 1 / 200))
            file.write(f"{prompt(draw)},{output}\n")
    return path


class Runs:
    def __init__(self, args):
        self.args = args
        self.pool = concurrent.futures.ThreadPoolExecutor(args.jobs)

    def run(self, trace, router, workers, slots, seed, extra):
        command = [self.args.orrery, "simulate", "--trace", trace, "--trace-format", "lengths", "--router", router,
                   "--workers", str(workers), "--barrier", "--slots", str(slots), "--cost-profile", "constant:10",
                   "--prefill", "none", "--seed", str(seed), *extra, "--json"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return json.loads(result.stdout)

    def __call__(self, *what):
        """Of all seeds: a future of the mean idle share, imbalance and longest wait in steps."""
        def mean():
            runs = [self.run(*what[:4], seed, what[4]) for seed in range(self.args.seeds)]
            average = lambda key: sum(run[key] for run in runs) / len(runs)
            return {"idle": 100 * average("idle_fraction_mean"), "imbalance": average("imbalance_mean"),
                    "wait": max(run["max_ttft_ms"] for run in runs) / 10 - 1}
        return self.pool.submit(mean)


def saturated(runs, trace, expected):
    routers = ("fcfs", "jsq-tokens", "bf-io:age=0", "bf-io:age=50")
    extra = ["--arrival", "saturated"]
    cases = {case: [runs(trace, router, *case, extra) for router in routers] for case in expected}
    print("| G, B | fcfs idle % (other) | jsq-tokens / fcfs | bf-io idle % | fcfs / bf-io (other) | longest wait | "
          "with age 50 (other) | longest wait |\n|---|---|---|---|---|---|---|---|")
    for (workers, slots), futures in cases.items():
        fcfs, jsq, pure, aged = (future.result() for future in futures)
        idle, ratio, aged_ratio = expected[workers, slots]
        print(f"| {workers}, {slots} | {fcfs['idle']:.1f} ({idle}) | {jsq['imbalance'] / fcfs['imbalance']:.2f} | "
              f"{pure['idle']:.2f} | {fcfs['imbalance'] / pure['imbalance']:.1f} ({ratio}) | {pure['wait']:.0f} | "
              f"{fcfs['imbalance'] / aged['imbalance']:.1f} ({aged_ratio or '-'}) | {aged['wait']:.0f} |", flush=True)


def looking_ahead(runs, trace):
    print("| H | predictor | idle % | imbalance |\n|---|---|---|---|")
    rows = [(steps, predictor, runs(trace, f"bf-io:age=0,lookahead={steps}", 16, 72,
                                    ["--arrival", "saturated", "--predictor", predictor]))
            for steps, predictor in ((0, "oracle"), (5, "oracle"), (10, "oracle"), (5, "empirical"))]
    for steps, predictor, future in rows:
        print(f"| {steps} | {predictor} | {future.result()['idle']:.2f} | {future.result()['imbalance'] / 1000:.1f}k |",
              flush=True)


def limited(runs, trace):
    routers = list(LIMITED[0.5])
    print("| rho | " + " | ".join(f"{router} (other)" for router in routers) + " |\n|---" * 1 +
          "|---" * len(routers) + "|")
    for rho, expected in LIMITED.items():
        extra = ["--arrival", "poisson", "--rho", str(rho), "--num-requests", "200000", "--warmup", "20000"]
        futures = [runs(trace, router, 16, 72, extra) for router in routers]
        cells = [f"{future.result()['idle']:.1f} ({expected[router]})" for router, future in zip(routers, futures)]
        print(f"| {rho} | " + " | ".join(cells) + " |", flush=True)


SECTIONS = {
    "saturated": ("Saturated, prompts uniform in 1..2000", "uniform", lambda *of: saturated(*of, UNIFORM)),
    "lognormal": ("Saturated, prompts lognormal (median 600, sigma 1, at most 16,000)", "lognormal",
                  lambda *of: saturated(*of, LOGNORMAL)),
    "lookahead": ("Looking ahead, 16 workers of 72 slots, uniform prompts", "uniform", looking_ahead),
    "limited": ("Below saturation: idle % by router, 16 workers of 72 slots", "uniform", limited),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orrery", default="build/bin/orrery")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=list(SECTIONS), help="this section alone")
    args = parser.parse_args()
    runs = Runs(args)
    with tempfile.TemporaryDirectory() as folder:
        traces = {"uniform": write_trace(folder, "uniform", lambda draw: draw.randint(1, 2000)),
                  "lognormal": write_trace(folder, "lognormal", lambda draw: min(
                      16000, max(1, round(draw.lognormvariate(math.log(600), 1)))))}
        for title, trace, table in [SECTIONS[args.only]] if args.only else SECTIONS.values():
            print(f"## {title}\n")
            table(runs, traces[trace])
            print(flush=True)


if __name__ == "__main__":
    main()
