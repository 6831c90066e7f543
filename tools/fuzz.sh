#!/usr/bin/env bash
# Searches for inputs that break what the targets of fuzz/ promise, one target after the other, and tells a line of each.
#
#     tools/fuzz.sh SECONDS FOLDER [TARGET...]
#     tools/fuzz.sh keep FOLDER [TARGET...]
#
# FOLDER has what was found to be interesting, so that the next search goes on where this one ended; `keep` puts the fewest
# and smallest inputs of it that reach the same code into fuzz/corpus. The toolchain is the stable one: coverage is LLVM's
# own pass, which `-C passes` reaches without a flag of nightly. A target triple is named so that build scripts go without.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target, or keep}
folder=${2:?a folder for inputs between searches}
shift 2
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
for target in "${targets[@]}"; do
  [ -d "fuzz/corpus/$target" ] || { echo "'$target' is no target: they are" fuzz/corpus/* >&2; exit 64; }
done
triple=$(rustc -vV | sed -n 's/^host: //p')
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-{level=4,inline-8bit-counters,pc-table,trace-compares})
RUSTFLAGS="${flags[*]} -Ccodegen-units=1" \
  cargo build --profile fuzz --target "$triple" --package xebec-fuzz --bin fuzz --features libfuzzer
program=target/$triple/fuzz/fuzz

# Takes the inputs that a search found out of the corpus, and those that it takes to reach their code back into it.
keep() {
  local target=$1 corpus=fuzz/corpus/$1
  mkdir -p "$folder/$target"
  find "$corpus" -type f ! -name 'seed-*' ! -name 'finding-*' -exec mv -t "$folder/$target" {} +
  XEBEC_FUZZ_TARGET=$target "$program" -set_cover_merge=1 -use_counters=0 -max_len=512 "$corpus" "$folder/$target" 2>&1 |
    grep -A 9 -E 'panicked at|ERROR' && return 1
  echo "$corpus: $(find "$corpus" -type f | wc -l) inputs, $(cat "$corpus"/* | wc -c) bytes"
}

search() {
  local target=$1 findings=target/fuzz-findings/$1 log=target/fuzz-findings/$1.log status=0 edges inputs input
  mkdir -p "$folder/$target" "$findings"
  XEBEC_FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
    -dict="fuzz/dictionaries/$target" -artifact_prefix="$findings/" -print_final_stats=1 \
    "$folder/$target" "fuzz/corpus/$target" > "$log" 2>&1 || status=$?
  stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
  # The last line of progress: `#N  KIND cov: EDGES ft: FEATURES corp: INPUTS/SIZE ...`.
  read -r edges inputs < <(sed -n 's/^#[0-9].* cov: \([0-9]*\).* corp: \([0-9]*\)\/.*/\1 \2/p' "$log" | tail -1) || true
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
  printf '%-8s %12s %10s %8s %9s  %s\n' "$target" "$(stat number_of_executed_units)" \
    "$(stat average_exec_per_sec)" "${edges:-0}" "${inputs:-0}" "${input:-none}"
  [ "$status" -ne 0 ] || return 0
  grep -m 1 -A 2 'panicked at' "$log" | cut -c 1-400 || tail -5 "$log"
  [ -z "$input" ] || echo "replay it: cargo run --package xebec-fuzz --bin replay -- $target $input"
  echo "keep it:   in fuzz/corpus/$target, as finding-WHAT; all of the search is in $log"
  return 1
}

if [ "$seconds" = keep ]; then
  for target in "${targets[@]}"; do keep "$target"; done
  exit
fi
found=0
printf '%-8s %12s %10s %8s %9s  %s\n' target executions per-second edges corpus findings
for target in "${targets[@]}"; do search "$target" || found=1; done
exit "$found"
