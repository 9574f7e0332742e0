#!/usr/bin/env bash
# Make sure that the programs which the tests drive and pip cannot install are here: Chromium, Redis beside Valkey, HAProxy,
# PgBouncer, coturn, and promtool, which comes with Prometheus.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v promtool >/dev/null || missing+=(prometheus)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v pgbouncer >/dev/null || missing+=(pgbouncer)
command -v turnserver >/dev/null || missing+=(coturn)
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  if [[ " ${missing[*]} " != *" chromium "* ]]; then
    echo "${missing[*]} is missing: its tests are skipped (Debian, Ubuntu: apt-get install ${missing[*]})" >&2
    exit 0
  fi
  echo "chromium is missing, and the browser tests need it: install it (Debian, Ubuntu: apt-get install chromium)" >&2
  exit 1
fi
echo "installing ${missing[*]} with apt-get"
export DEBIAN_FRONTEND=noninteractive
# The program is wanted, not a service: a policy keeps apt from starting one, where none says so already.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
apt-get update -qq </dev/null
apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
