#!/usr/bin/env bash
# Where the server's processor time goes under the load of `make bench`: shares by binary and by function.
#
#     tools/profile.sh grpc|binary|json
#
# Wants perf (Debian's linux-perf) and two idle cores. The server is pinned to core 0, the generator to core 1.
set -euo pipefail
cd "$(dirname "$0")/.."
protocol=${1:?which protocol: grpc, binary or json}
command -v perf > /dev/null || { echo "perf is missing: apt-get install linux-perf" >&2; exit 1; }
folder=$(mktemp -d)
taskset -c 0 target/profiling/xebec up examples/fraud-detection --io-threads 1 \
  --http-port 0 --grpc-port 0 --metrics-port 0 > "$folder/server" &
server=$!
trap 'kill "$server" 2> /dev/null || true; rm -rf "$folder"' EXIT
until grep -q '^ready' "$folder/server"; do kill -0 "$server"; read -rt 0.05 <> <(:) || true; done
word=http
[ "$protocol" = grpc ] && word=grpc
url=$(awk -v word="$word" '$1 == word { print $2 }' "$folder/server")
taskset -c 1 target/profiling/xebec bench fraud-mlp --url "$url" --protocol "$protocol" --concurrency 64 --duration 6 &
generator=$!
# The first second is the generator's warm-up.
perf record --quiet --event cpu-clock --freq 2000 --call-graph fp --delay 2000 --pid "$server" \
  --output "$folder/perf" -- sleep 5
wait "$generator"
echo; echo "share of the server's time, by binary"
perf report --input "$folder/perf" --no-children --sort dso -g none --percent-limit 1 2> /dev/null | sed '/^#/d;/^$/d'
echo; echo "with what they call: system calls"
perf report --input "$folder/perf" --children --sort sym -g none 2> /dev/null |
  grep -E '\] __x64_sys_(sendto|writev|recvfrom|epoll_wait)' || true
echo; echo "by function of the server itself"
perf report --input "$folder/perf" --no-children --dso xebec --sort sym -g none 2> /dev/null |
  sed '/^#/d;/^$/d' | sed -n '1,15p' | cut -c1-140
