#!/usr/bin/env bash
# Make sure that the programs which the tests drive and pip cannot install are here: Chromium.
set -euo pipefail

if command -v chromium >/dev/null; then
  exit 0
fi
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "chromium is missing, and the browser tests need it: install it (Debian, Ubuntu: apt-get install chromium)" >&2
  exit 1
fi
echo "installing chromium with apt-get"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -qq -y --no-install-recommends chromium </dev/null >/dev/null
