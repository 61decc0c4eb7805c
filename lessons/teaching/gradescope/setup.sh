#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image: it installs what
# submissions and the grading need, and compiles the grading.
set -euo pipefail
root=${AUTOGRADER_ROOT:-/autograder}

# Leave out the languages that your students do not use.
if [ "${INSTALL:-yes}" = yes ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -qy --no-install-recommends ca-certificates curl gcc g++ make libc6-dev \
    python3 default-jdk-headless nodejs golang-go openssl stunnel4 procps
  # The distribution's Rust may be older than 1.89.
  curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs | sh -s -- -y --profile minimal
fi
if [ -f "$HOME/.cargo/env" ]; then
  # shellcheck source=/dev/null
  . "$HOME/.cargo/env"
fi

cd "$root/source/project"
cargo build --release --bin mark
cargo test --no-run
# Here are the solutions. Submissions run as another user, who can't enter.
chmod 700 "$root/source"
