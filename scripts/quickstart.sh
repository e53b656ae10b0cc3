#!/usr/bin/env bash
# From a fresh Debian 12 to a streamed answer: sets up, builds, serves the demonstration model, streams an answer to a
# prompt, runs a 20-request load test, shows the metrics, stops.
#   scripts/quickstart.sh ["Your prompt"]
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-"Tell me a story about a fox and a silver bell."}
model=${MODEL:-deploy/models/demo}
grpc=127.0.0.1:${PORT:-50051}
metrics=127.0.0.1:${METRICS_PORT:-9400}

step() { printf '\n== %s\n' "$1" >&2; }

step "set up and build"
scripts/setup.sh
cmake --preset release -DORRERY_BUILD_TESTS=OFF -DORRERY_BUILD_BENCH=OFF >/dev/null
cmake --build build -j "$(nproc)"

step "serve $model on $grpc"
log=$(mktemp)
build/bin/orreryd --model "$model" --listen "$grpc" --metrics-listen "$metrics" 2>"$log" &
server=$!
stop() { kill -TERM "$server" 2>/dev/null && wait "$server" || true; rm -f "$log"; }
trap stop EXIT
for _ in $(seq 300); do
  curl -sf "http://$metrics/ready" >/dev/null && break
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
curl -sf "http://$metrics/ready" >/dev/null || { echo "quickstart: not ready after 30 s" >&2; cat "$log" >&2; exit 1; }

step "stream an answer to: $prompt"
chat=$(mktemp)
python3 - "$prompt" >"$chat" 2>/dev/null <<'PY' || printf '[{"role":"user","content":"%s"}]' "${prompt//[\"\\]/}" >"$chat"
import json, sys
print(json.dumps([{"role": "user", "content": sys.argv[1]}]))
PY
build/bin/orrery generate --target "$grpc" --chat "$chat" --max-tokens 400 --seed 1
rm -f "$chat"

step "load test: 20 requests"
build/bin/orrery bench --target "$grpc" --dataset random --input-len 64 --output-len 64 --num-requests 20 --rate 10 --ignore-eos --seed 1

step "metrics (all of them: curl http://$metrics/metrics)"
curl -s "http://$metrics/metrics" | grep -E '^orrery_(requests_total|prompt_tokens_total|generated_tokens_total|kv_cache_used_ratio|requests_running|time_to_first_token_seconds_(sum|count))'

step "stop"
