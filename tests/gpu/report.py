#!/usr/bin/env python3
"""One table and one results file from what the stages of scripts/gpu_check.sh left in a folder.

    tests/gpu/report.py FOLDER [--save RESULTS.json]

Of a file that was cut off, what is complete is taken. Exit code 1 where a stage failed.
"""
import argparse
import datetime
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
STAGES = ["build", "ceilings", "kernels", "parity", "kernel-bench", "engine-bench", "peers", "sanitizer"]
EXITS = {-1: "did not end", 0: "ok", 9: "9: the checker found something", 124: "124: timed out", 137: "137: killed"}


def complete_part(text):
    """Of a JSON text that was cut off: up to the last object or list that ends, all around it closed."""
    closers, part = [], None
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[][{}]', text):
        if token[0] in "{[":
            closers.append("}" if token[0] == "{" else "]")
        elif token[0] in "}]":
            closers.pop()
            part = text[:token.end()] + "".join(reversed(closers))
    return json.loads(part) if part else None


def load(path):
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        print(f"{path.name} is cut off or broken: {error}")
    try:
        return complete_part(text)
    except (json.JSONDecodeError, IndexError):
        return None


def table(title, head, rows):
    if not rows:
        return
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |")


def number(value, form="{:.2f}"):
    return "" if value is None else form.format(value)


def square_tflop_s(ceilings):
    """What counts as the device's peak: of the square product. None where it was not measured."""
    rates = [row["tflop_s"] for row in (ceilings or {}).get("products", []) if row["m"] == row["n"] == row["k"]]
    return rates[0] if rates else None


def ceiling_rows(ceilings):
    for size, rates in ceilings.get("bandwidth_tb_s", {}).items():
        yield [f"bandwidth, {size}", ", ".join(f"{name} {rate:.2f} TB/s" for name, rate in rates.items())]
    if square := square_tflop_s(ceilings):
        yield ["bf16 product 8192^3", f"{square:.0f} TFLOP/s"]
    if gain := sorted(row["first_us"] / row["best_us"] for row in ceilings.get("products", []) if row["m"] != row["n"]):
        yield ["cuBLASLt's first choice : best of 32", f"median {gain[len(gain) // 2]:.2f}, most {gain[-1]:.2f}"]
    if launch := ceilings.get("launch_us"):
        yield ["a kernel that does nothing", ", ".join(f"{name} {us:.2f} us" for name, us in launch.items())]


def kernel_rows(bench, ceilings, peers, published):
    ceilings, peers = ceilings or {}, peers or {}
    # No cache holds a part of 8 GiB.
    read = ceilings.get("bandwidth_tb_s", {}).get("8 GiB", {}).get("read")
    peak = square_tflop_s(ceilings)
    best_gemm = {f"m{p['m']} {p['n']}x{p['k']}": p["best_us"] for p in ceilings.get("products", [])}
    peer_us = {(row["kernel"], row["case"]): row["peers_us"] for row in peers.get("rows", [])}
    for row in bench["rows"]:
        by_flop = row["kernel"].startswith("prefill")
        share = None
        if by_flop:
            share = row["tflop_s"] / peak if peak else None
        elif row["bytes"] and read:
            share = row["tb_s"] / read
        others = {name: us for name, us in peer_us.get((row["kernel"], row["case"]), {}).items()
                  if isinstance(us, (int, float))}
        if row["kernel"] == "skinny product" and row["case"] in best_gemm:
            others["cuBLASLt, best of 32"] = best_gemm[row["case"]]
        known = published["decode attention"].get(row["case"]) if row["kernel"] == "decode attention" else None
        ratio = min(known) / row["us"] if known else None
        if row["kernel"] == "prefill attention" and row["case"] in published["prefill attention, TFLOP/s"]:
            ratio = row["tflop_s"] / max(published["prefill attention, TFLOP/s"][row["case"]])
        yield [row["kernel"], row["case"], f"{row['us']:.2f} ({row['least_us']:.2f} to {row['most_us']:.2f})",
               f"{row['tflop_s']:.0f} TFLOP/s" if by_flop else f"{row['tb_s']:.2f} TB/s", number(share),
               ", ".join(f"{name} {us / row['us']:.2f}" for name, us in others.items()), number(ratio),
               "NaN" if row["error"] is None else "" if row["error"] < 0 else f"{row['error']:.1e}"]


def engine_rows(benches, published):
    for name, bench in benches.items():
        goals = published["engine, ms"].get(name.removesuffix("_batch-invariant"), {})
        for row in bench["rows"]:
            floor, known, goal1, goal2 = goals.get(row["case"], [None] * 4)
            met = "" if goal1 is None else "2" if row["ms"] <= goal2 else "1" if row["ms"] <= goal1 else "NO"
            yield [name, row["case"], f"{row['ms']:.3f} ({row['least_ms']:.3f} to {row['most_ms']:.3f})",
                   f"{row['tokens_s']:.0f}", number(floor and floor / row["ms"]), number(known and known / row["ms"]),
                   number(goal1), number(goal2), met, f"{row['launch_us']:.0f}"]


def parity_rows(parity):
    for row in parity["rows"]:
        if "failure" in row:
            yield [row["case"], row["failure"], "", "", "", "", "NO"]
            continue
        yield [row["case"], f"{row['error']:.2e}", f"{row['transformers_bf16_error']:.2e}",
               f"{number(row['agreement'], '{:.4f}')} of {row['clear_positions']}", row["invariant_chunks_equal"],
               row["invariant_batch_equal"], "yes" if row["pass"] else "NO"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path)
    args = parser.parse_args()
    published = load(HERE / "published_h200.json")
    stages = {}
    for stage in STAGES:
        status = args.folder / f"{stage}.status"
        if status.exists():
            code, seconds = status.read_text(encoding="utf-8").split()
            stages[stage] = {"exit": int(code), "seconds": int(seconds)}
    ceilings, kernels, peers, parity = (load(args.folder / f"{name}.json")
                                        for name in ("ceilings", "kernel-bench", "peers", "parity"))
    engines = {path.name.removeprefix("engine-bench.").removesuffix(".json"): load(path)
               for path in sorted(args.folder.glob("engine-bench.*.json"))}
    engines = {name: bench for name, bench in engines.items() if bench}

    if args.save:
        now = datetime.datetime.now(datetime.timezone.utc)
        args.save.write_text(json.dumps({"at": now.isoformat(timespec="seconds"), "stages": stages, "ceilings": ceilings,
                                    "parity": parity, "kernels": kernels, "peers": peers, "engines": engines}, indent=1) +
                             "\n", encoding="utf-8")
    if ceilings:
        print(f"{ceilings['device']}, compute capability {ceilings['capability']}, driver {ceilings['driver']}, "
              f"runtime {ceilings['runtime']}, cuBLASLt {ceilings['cublaslt']}")
        table("Ceilings of this run", ["what", "measured"], list(ceiling_rows(ceilings)))
    if parity:
        table("Logits beside transformers", ["model", "error", "transformers in bf16", "same best token",
                                             "chunks equal", "batch of 64 equal", "passes"], list(parity_rows(parity)))
    if kernels:
        table("Kernels (peer's time : ours, so above 1 is faster than it)",
              ["kernel", "case", "us", "rate", "of ceiling", "peers", "best published", "error"],
              list(kernel_rows(kernels, ceilings, peers, published)))
    table("Steps of whole models, random weights (floor : ours)",
          ["model", "case", "ms", "tokens/s", "floor", "best op sum", "goal 1", "goal 2", "goal met", "launch us"],
          list(engine_rows(engines, published)))
    table("Stages", ["stage", "exit", "seconds"],
          [[name, EXITS.get(s["exit"], s["exit"]), s["seconds"]] for name, s in stages.items()])

    sys.exit(1 if any(stage["exit"] != 0 for stage in stages.values()) or not stages else 0)


if __name__ == "__main__":
    main()
