#!/usr/bin/env python3
"""The daemon beside a bare echo service of the same stubs, over loopback gRPC, with the bundled generator: requests and
messages a second in a closed loop, and what a router in front of a worker adds to the time to first token, where one
echo service in front of another stands for what a hop costs.

    tests/bench/loopback.py --model DIR [--bin build/bin] [--rounds 5] [--requests 2000] [--tokens 16]

The engine is modeled and takes no time, so that what is measured is everything else. Rounds of the servers alternate;
medians and their ratios are reported. Tokens that are ready together share a message, of the echo none do.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port}")


class Servers:
    def __init__(self, args):
        self.args, self.processes = args, []

    def start(self, program, *flags):
        port = free_port()
        listen = [str(port)] if program == "echo_server" else ["--listen", f"127.0.0.1:{port}", "--metrics-listen="]
        command = [os.path.join(self.args.bin, program), *listen, *flags]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        wait_for(port)
        return f"127.0.0.1:{port}"

    def stop(self):
        for process in self.processes:
            process.kill()


def bench(args, target, load):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [os.path.join(args.bin, "orrery"), "bench", "--target", target, "--dataset", "random",
                   "--num-requests", str(args.requests), "--warmup", str(args.requests // 10), "--input-len", "32",
                   "--output-len", str(args.tokens), "--ignore-eos", "--temperature", "0", *load, "--save", file.name,
                   "--json"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        rows = json.load(open(file.name, encoding="utf-8"))
    messages = sum(len(chunks) for chunks in rows["chunk_lens"]) + 2 * len(rows["chunk_lens"])  # started, finished
    return {"requests/s": rows["request_throughput"], "tokens/s": rows["output_throughput"],
            "messages/s": messages / rows["duration"],
            "TTFT p50 ms": rows["median_ttft_ms"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--step-ms", type=float, default=0.001)
    args = parser.parse_args()
    servers = Servers(args)
    modeled = ["--model", args.model, "--backend", "modeled", "--cost-profile", f"constant:{args.step_ms}",
               "--log-level", "error", "--max-num-seqs", "512"]
    try:
        echo = servers.start("echo_server")
        targets = {"echo": echo, "echo of an echo": servers.start("echo_server", echo),
                   "daemon": servers.start("orreryd", *modeled)}
        worker = servers.start("orreryd", "--role", "worker", *modeled)
        targets["router + worker"] = servers.start("orreryd", "--role", "router", "--model", args.model, "--log-level",
                                                   "error", "--worker-address", worker)
        time.sleep(2)
        closed = {name: [] for name in targets}
        for _ in range(args.rounds):
            for name, target in targets.items():
                closed[name].append(bench(args, target, ["--concurrency", str(args.concurrency)]))
        medians = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]}
                   for name, runs in closed.items()}
        print(f"closed loop, {args.concurrency} in flight, {args.requests} requests of {args.tokens} tokens, "
              f"{args.rounds} rounds, medians")
        for name, row in medians.items():
            of_echo = ", ".join(f"{key} {row[key]:.0f} ({row[key] / medians['echo'][key]:.2f} of echo)"
                                for key in ("requests/s", "tokens/s", "messages/s"))
            print(f"  {name}: {of_echo}")
        top = medians["router + worker"]["requests/s"]
        print("open loop, median TTFT in ms")
        for share in (1 / 8, 1 / 4, 1 / 2):
            load = ["--rate", f"{share * top:.1f}"]
            opened = {name: [] for name in targets}
            for _ in range(args.rounds):
                for name, target in targets.items():
                    opened[name].append(bench(args, target, load)["TTFT p50 ms"])
            ttft = {name: statistics.median(values) for name, values in opened.items()}
            print(f"  {share * top:.0f} requests/s: " + ", ".join(f"{name} {value:.3f}" for name, value in ttft.items()) +
                  f"; the router adds {1000 * (ttft['router + worker'] - ttft['daemon']):.0f} us, the echo's extra hop "
                  f"{1000 * (ttft['echo of an echo'] - ttft['echo']):.0f} us")
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
