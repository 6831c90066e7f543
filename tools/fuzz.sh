#!/usr/bin/env bash
# Searches for inputs that break what the targets of fuzz/ promise, one target after the other, and tells a line of each.
#
#     tools/fuzz.sh SECONDS FOLDER [TARGET...]
#
# FOLDER keeps what was found to be interesting, so that the next search goes on where this one ended. The toolchain is the
# stable one: coverage is LLVM's own pass, which `-C passes` reaches without a flag of nightly. Nothing of it goes into
# build scripts, because a target triple is named.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target}
kept=${2:?a folder for inputs between searches}
shift 2
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
for target in "${targets[@]}"; do
  [ -d "fuzz/corpus/$target" ] || { echo "'$target' is no target: they are $(ls -x fuzz/corpus)" >&2; exit 64; }
done
triple=$(rustc -vV | sed -n 's/^host: //p')
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-{level=4,inline-8bit-counters,pc-table,trace-compares})
RUSTFLAGS="${flags[*]} -Ccodegen-units=1" \
  cargo build --profile fuzz --target "$triple" --package xebec-fuzz --bin fuzz --features libfuzzer
program=target/$triple/fuzz/fuzz
found=0
printf '%-8s %12s %10s %8s %9s  %s\n' target executions per-second edges corpus findings
for target in "${targets[@]}"; do
  findings=target/fuzz-findings/$target
  log=target/fuzz-findings/$target.log
  mkdir -p "$kept/$target" "$findings"
  status=0
  XEBEC_FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
    -dict="fuzz/dictionaries/$target" -artifact_prefix="$findings/" -print_final_stats=1 \
    "$kept/$target" "fuzz/corpus/$target" > "$log" 2>&1 || status=$?
  stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
  # The last line of progress: `#N  KIND cov: EDGES ft: FEATURES corp: INPUTS/SIZE ...`.
  read -r edges inputs < <(sed -n 's/^#[0-9].* cov: \([0-9]*\).* corp: \([0-9]*\)\/.*/\1 \2/p' "$log" | tail -1) || true
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
  printf '%-8s %12s %10s %8s %9s  %s\n' "$target" "$(stat number_of_executed_units)" \
    "$(stat average_exec_per_sec)" "${edges:-0}" "${inputs:-0}" "${input:-none}"
  if [ "$status" -ne 0 ]; then
    found=1
    grep -m 1 -A 2 'panicked at' "$log" | cut -c 1-400 || tail -5 "$log"
    [ -z "$input" ] || echo "replay it: cargo run --package xebec-fuzz --bin replay -- $target $input"
    echo "keep it:   cp the file to fuzz/corpus/$target/finding-WHAT; all of the search is in $log"
  fi
done
exit "$found"
