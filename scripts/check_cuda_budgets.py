#!/usr/bin/env python3
"""Compiles the CUDA kernels and fails where one spills or takes more registers than its budget.

Budgets stand at the top of every kernels/cuda/*.cu, one line for each kernel, whatever its template arguments:

    // Budgets (registers of a thread, nothing spilled):
    //   SiluMulKernel 40

Prints a line per kernel and architecture with the most registers of its instances. Exit code 1: over budget, a
kernel without a budget, a budget without a kernel, or an error of the compiler; 77: no compiler.
"""

import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys

ARCHITECTURES = ["80", "90a"]
BUDGETS = re.compile(r"^// Budgets.*\n((?://   \w+ \d+\n)+)", re.M)


def budgets_of(text):
    match = BUDGETS.search(text)
    return {line.split()[1]: int(line.split()[2]) for line in match.group(1).splitlines()} if match else {}


def kernel_of(mangled, names):
    """Names are mangled with their length in front; the first one that fits is the function's."""
    found = [(mangled.find(f"{len(name)}{name}"), name) for name in names]
    return min([entry for entry in found if entry[0] >= 0], default=(0, None))[1]


def entries_of(log):
    """(mangled name, architecture, registers, spilled bytes) of every kernel in what ptxas -v printed."""
    name, arch, spilled = None, None, 0
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for 'sm_(\w+)'", line):
            name, arch, spilled = match.group(1), match.group(2), 0
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match.group(1)) + int(match.group(2))
        elif (match := re.search(r"Used (\d+) registers", line)) and name:
            yield name, arch, int(match.group(1)), spilled
            name = None


def judge(file, text, log):
    """(lines to print, complaints) of one source file."""
    budgets, complaints, most = budgets_of(text), [], {}
    for mangled, arch, registers, spilled in entries_of(log):
        kernel = kernel_of(mangled, budgets)
        if kernel is None:
            complaints.append(f"{file}: {mangled} has no budget")
            continue
        most[kernel, arch] = max(most.get((kernel, arch), 0), registers)
        if registers > budgets[kernel]:
            complaints.append(f"{file}: {mangled} takes {registers} registers on sm_{arch}, its budget is "
                              f"{budgets[kernel]}")
        if spilled:
            complaints.append(f"{file}: {mangled} spills {spilled} bytes on sm_{arch}")
    for kernel in budgets:
        if not any(kernel == name for name, _ in most):
            complaints.append(f"{file}: budget of {kernel}, which is no kernel")
    return [f"{kernel} sm_{arch}: {used} of {budgets[kernel]} registers"
            for (kernel, arch), used in sorted(most.items())], complaints


def compile_log(nvcc, root, file):
    command = [nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-I{root}", "-Xptxas", "-v", "-c",
               str(file), "-o", "/dev/null"]
    for arch in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def self_test():
    text = "// Budgets (x):\n//   GoodKernel 40\n//   FatKernel 20\n//   GoneKernel 1\n\ncode\n"
    log = ""
    for name, registers, spill in [("GoodKernel", 40, 0), ("FatKernel", 21, 0), ("GoodKernel", 8, 4),
                                   ("NewKernel", 1, 0)]:
        log += (f"ptxas info    : Compiling entry function '_ZN1a{len(name)}{name}IfEv' for 'sm_80'\n"
                f"    0 bytes stack frame, {spill} bytes spill stores, 0 bytes spill loads\n"
                f"ptxas info    : Used {registers} registers, used 0 barriers\n")
    lines, complaints = judge("f.cu", text, log)
    expected = ["takes 21 registers on sm_80, its budget is 20", "spills 4 bytes on sm_80", "has no budget",
                "budget of GoneKernel, which is no kernel"]
    good = len(complaints) == len(expected) and all(e in c for e, c in zip(expected, complaints))
    good = good and lines == ["FatKernel sm_80: 21 of 20 registers", "GoodKernel sm_80: 40 of 40 registers"]
    print("self-test:", "passed" if good else f"failed: {lines} {complaints}")
    return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", help="the compiler; without, the test is skipped")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    if not args.nvcc:
        print("cuda_budget_test skipped: no nvcc")
        return 77
    root = pathlib.Path(__file__).resolve().parent.parent
    files = sorted((root / "kernels/cuda").glob("*.cu"))
    failed = False
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        logs = pool.map(lambda file: compile_log(args.nvcc, root, file), files)
        for file, (code, log) in zip(files, logs):
            if code != 0:
                print(log)
                failed = True
                continue
            lines, complaints = judge(file.name, file.read_text(), log)
            print("\n".join(lines + complaints))
            failed = failed or bool(complaints)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
