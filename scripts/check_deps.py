#!/usr/bin/env python3
"""Fails when an include, a link or an identifier breaks the one-way arrows of the architecture.

The tables below are the rules; `check_deps.py [ROOT]` prints every violation as FILE:LINE: WHAT and exits 1 if
there is one. `--self-test` shows on made-up files that each kind of violation is found.
"""

import pathlib
import re
import sys
import tempfile

SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
FOLDERS = ["scheduler", "router", "kernels", "engine", "server", "proto"]

# Folder -> what its files may include with quotes, as path prefixes; the longest folder that matches counts.
# Names that belong to no folder of ours are libraries.
INCLUDES = {
    "scheduler": ["scheduler/", "absl/"],
    "scheduler/base": ["scheduler/base/", "absl/"],
    "scheduler/types": ["scheduler/base/", "scheduler/types/", "absl/"],
    "scheduler/cost": ["scheduler/base/", "scheduler/types/", "scheduler/cost/", "absl/"],
    "scheduler/predict": ["scheduler/base/", "scheduler/types/", "scheduler/predict/", "absl/"],
    "scheduler/kv": ["scheduler/base/", "scheduler/types/", "scheduler/cost/", "scheduler/kv/", "absl/"],
    "scheduler/policy": ["scheduler/base/", "scheduler/types/", "scheduler/kv/", "scheduler/cost/",
                         "scheduler/predict/", "scheduler/policy/", "scheduler/solver/", "absl/"],
    "router": ["router/", "scheduler/", "absl/"],
    "kernels": ["kernels/"],
    "engine": ["engine/", "kernels/", "scheduler/base/", "scheduler/types/", "scheduler/cost/", "absl/",
               "nlohmann/"],
    "server": ["server/", "router/", "engine/", "scheduler/", "kernels/", "orrery/v1/", "*"],
}

# Folder -> folders whose CMake targets its targets may link to.
LINKS = {
    "scheduler": ["scheduler"],
    "router": ["router", "scheduler"],
    "kernels": ["kernels"],
    "engine": ["engine", "kernels", "scheduler"],
    "server": FOLDERS,
    "proto": ["proto"],
}

CLOCKS = r"<chrono>|std::chrono|steady_clock|system_clock|clock_gettime|gettimeofday|absl::Now|absl/time"
THREADS = r"<thread>|<mutex>|<shared_mutex>|<condition_variable>|<future>|<atomic>|std::j?thread|std::mutex|" \
          r"std::atomic|pthread_|absl::Mutex|absl/synchronization"
SOCKETS = r"<sys/socket\.h>|<netinet/|<arpa/|<poll\.h>|<sys/epoll\.h>|\bgrpc::|<grpc"
FILES = r"<fstream>|<filesystem>|std::[io]?fstream|std::filesystem|\bfopen\b|<fcntl\.h>|<sys/mman\.h>"
OUTPUT = r"<iostream>|std::c(out|err|log)\b|\bf?printf\("
ENVIRONMENT = r"\bgetenv\b"
CHANCE = r"<random>|std::random_device|std::mt19937|\brand\(\)|\bsrand\("
SOLVERS = r"<coin/"
# Their order of iteration is not a function of what was put in.
UNORDERED = r"<unordered_(map|set)>|std::unordered_"
# But for the guards of headers.
BACKENDS = r"^\s*#\s*(if|ifdef|ifndef|elif)\b(?!.*_H_\s*$).*(?<![A-Z])(CUDA|HIP|ROCM|METAL|AVX|AMX|SSE|NEON|x86_64|aarch64)"

# Folder -> (what it is, pattern).
FORBIDDEN = {
    "scheduler": [("a clock", CLOCKS), ("a thread or lock", THREADS), ("a socket", SOCKETS), ("a file", FILES),
                  ("output", OUTPUT), ("the environment", ENVIRONMENT), ("unseeded chance", CHANCE),
                  ("an unordered container", UNORDERED), ("a backend #if", BACKENDS),
                  ("a solver's library", SOLVERS)],
    "kernels": [("the environment", ENVIRONMENT), ("a socket", SOCKETS), ("a file", r"<fstream>|std::filesystem"),
                ("a raw launch", r"<<<"), ("assembly", r"\basm\b"), ("raw shared memory", r"\b__shared__\b")],
    "engine": [("the environment", ENVIRONMENT), ("a socket", SOCKETS), ("a backend #if", BACKENDS)],
    "server": [("a backend #if", BACKENDS)],
}
FORBIDDEN["router"] = FORBIDDEN["scheduler"]

# (file, what) pairs that are allowed, each with its reason.
EXCEPTIONS = {
    ("scheduler/base/check.h", "output"),  # says which invariant broke before it aborts
    # The one launcher, the one home of PTX, and the switch of a fiber's stack.
    ("kernels/cuda/launch.cuh", "a raw launch"),
    ("kernels/cuda/primitives.cuh", "assembly"),
    ("kernels/cuda/primitives.cuh", "raw shared memory"),
    ("kernels/emulate/fiber.cc", "assembly"),
    ("kernels/cpu/amx_tiles.h", "assembly"),  # barriers for the compiler
    # The adapters behind scheduler/solver/solver.h.
    ("scheduler/solver/cbc.cc", "a solver's library"),
    ("scheduler/solver/clp.cc", "a solver's library"),
    ("scheduler/solver/coin.h", "a solver's library"),
}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def strip_comments(text):
    """The code without comments and string contents, line structure kept. Include lines stay as they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.S)

    def replace(match):
        found = match.group(0)
        if found.startswith('"'):
            line_start = text.rfind("\n", 0, match.start()) + 1
            return found if re.match(r"\s*#\s*include\b", text[line_start:match.start()]) else '""'
        return "\n" * found.count("\n")

    return pattern.sub(replace, text)


def rule_of(table, path):
    """The entry of the deepest folder above `path`."""
    parts = path.split("/")[:-1]
    while parts:
        if "/".join(parts) in table:
            return table["/".join(parts)]
        parts.pop()
    return None


def check_source(path, text):
    allowed = rule_of(INCLUDES, path)
    forbidden = FORBIDDEN.get(path.split("/")[0], [])
    own = path.rsplit("/", 1)[0]
    for number, line in enumerate(strip_comments(text).split("\n"), 1):
        match = INCLUDE.match(line)
        if match and allowed is not None:
            target = match.group(1)
            if target.startswith("tests/"):
                yield number, f"includes {target}: tests are for tests"
            elif "*" in allowed:
                continue
            elif "/" not in target:
                yield number, f"includes {target}: paths start at the repository root"
            elif not any(target.startswith(prefix) for prefix in allowed):
                yield number, f"includes {target}: not an arrow of {own}/"
        for what, pattern in forbidden:
            if (path, what) not in EXCEPTIONS and re.search(pattern, line):
                yield number, f"uses {what}: {line.strip()}"


def target_folders(root):
    """Our CMake library targets -> the top folder that defines them."""
    targets = {}
    for folder in FOLDERS:
        for file in (root / folder).rglob("CMakeLists.txt"):
            for name in re.findall(r"(?:orrery_library|add_library)\(\s*(\w+)", file.read_text()):
                targets[name] = folder
    return targets


def check_links(path, text, targets):
    allowed = LINKS.get(path.split("/")[0])
    if allowed is None:
        return
    text = re.sub(r"#[^\n]*", "", text)
    for call in re.finditer(r"(orrery_library|orrery_program|target_link_libraries)\(([^)]*)\)", text):
        number = text.count("\n", 0, call.start()) + 1
        for word in call.group(2).split()[1:]:
            if word in targets and targets[word] not in allowed:
                yield number, f"links {word} of {targets[word]}/: not an arrow of {path.split('/')[0]}/"


def check(root):
    violations = []
    targets = target_folders(root)
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix in SOURCE_SUFFIXES:
                found = check_source(path, file.read_text())
            elif file.name == "CMakeLists.txt":
                found = check_links(path, file.read_text(), targets)
            else:
                continue
            violations += [f"{path}:{number}: {what}" for number, what in found]
    return violations


def self_test():
    bad = {
        "scheduler/a.cc": ['#include "router/router_core.h"', '#include "core.h"', "auto t = std::chrono::seconds(1);",
                           "std::mutex m;", "int fd = socket_of<netinet/in>;  #include <netinet/in.h>",
                           '#include <fstream>', 'const char* home = getenv("HOME");', "std::unordered_map<int, int> m;",
                           "#ifdef __AVX512F__", '#include "tests/scheduler/shadow_engine.h"',
                           "#include <coin/ClpSimplex.hpp>"],
        "scheduler/types/b.h": ['#include "scheduler/kv/lru.h"'],
        "router/c.cc": ['#include "engine/executor.h"', "std::thread t;"],
        "engine/d.cc": ['#include "scheduler/worker_core.h"', "#if defined(ORRERY_CUDA)"],
        "kernels/e.cc": ['#include "absl/status/status.h"'],
        "kernels/cuda/i.cuh": ["Kernel<<<1, 32>>>();", 'asm volatile("exit;");', "__shared__ float x[32];"],
    }
    good = {
        "scheduler/f.cc": ['// std::mutex in a comment', 'Say("std::chrono in a string");', '#include "scheduler/kv/lru.h"',
                           '#include <vector>'],
        "scheduler/base/check.h": ['std::fprintf(stderr, "x");'],
        "server/g.cc": ['#include "router/router_core.h"', "#include <thread>"],
        "kernels/h.cc": ["#ifdef __AVX512F__"],
    }
    links = {"kernels/CMakeLists.txt": "orrery_library(orrery_k SOURCES k.cc DEPS orrery_s)",
             "scheduler/CMakeLists.txt": "orrery_library(orrery_s SOURCES s.cc DEPS absl::status)"}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        contents = {**{p: "\n".join(lines) for p, lines in {**bad, **good}.items()}, **links}
        for path, text in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + "\n")
        violations = check(root)
    expected = {f"{path}:{i + 1}" for path, lines in bad.items() for i in range(len(lines))}
    expected.add("kernels/CMakeLists.txt:1")
    found = {":".join(v.split(":")[:2]) for v in violations}
    for missing in sorted(expected - found):
        print(f"self-test: not found: {missing}")
    for extra in sorted(found - expected):
        print(f"self-test: found in good code: {extra}")
    return expected == found


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    violations = check(root)
    print("\n".join(violations) if violations else "check_deps: no violation")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
