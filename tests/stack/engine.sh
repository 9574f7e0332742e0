#!/usr/bin/env bash
# Make sure that this machine can run an engine and has the images of deploy/compose.yaml: tests/stack/engine.sh install
# FOLDER, and, with the engine up, tests/stack/engine.sh images FOLDER IMAGE...
#
# Where no registry can be reached, images are replaced by stand-ins: Debian's packages of the same servers, under the
# names that the compose file asks for. They show that the files of deploy/ work together, not that those images do.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
action=$1 folder=$2
shift 2
release=trixie
packages=(python3 python3-pip python3-venv haproxy valkey-server valkey-tools postgresql-17 coturn prometheus)
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0)

# The machine's own mirror, which need not be the one that Debian's installer would have set.
mirror() {
  { grep -hE '^URIs:' /etc/apt/sources.list.d/*.sources || grep -hE '^deb ' /etc/apt/sources.list; } 2>/dev/null |
    grep -oE 'https?://[^ ]+/debian/?' | head -1
}

# A package's installation starts no service, here or in the stand-ins.
no_services() {
  if [[ ! -e $1/usr/sbin/policy-rc.d ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
  fi
}

# The system of the stand-ins, once: it is the base of them all.
root() {
  local root=$folder/root
  [[ -e $root.done ]] && return
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates "$release" "$root" "$(mirror)" >"$folder/root.log"
  # What this machine trusts and how its packages are fetched goes for the stand-ins too.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  cp /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/"
  cp /etc/resolv.conf "$root/etc/"
  no_services "$root"
  {
    chroot "$root" apt-get update -qq
    chroot "$root" "${apt[@]}" -o Dpkg::Options::=--force-unsafe-io install "${packages[@]}"
    chroot "$root" sh -c 'cd /root && apt-get download -qq docker-compose docker-buildx'
  } >>"$folder/root.log" 2>&1
  local deb
  for deb in "$root"/root/*.deb; do
    dpkg-deb -x "$deb" "$folder/plugins"
    rm "$deb"
  done
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
  touch "$root.done"
}

# Compose and buildx where the client has none: Debian $release has them as plugins.
plugins() {
  docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 && return
  root
  mkdir -p "$DOCKER_CONFIG/cli-plugins"
  cp "$folder"/plugins/usr/libexec/docker/cli-plugins/* "$DOCKER_CONFIG/cli-plugins/"
}

install() {
  mkdir -p "$folder"
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v docker >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  if [[ ${#missing[@]} -gt 0 ]]; then
    echo "installing ${missing[*]} with apt-get"
    no_services ""
    apt-get update -qq </dev/null
    "${apt[@]}" install "${missing[@]}" </dev/null >/dev/null
  fi
  plugins
}

stand_in() {
  local image=$1 name=${1##*/}
  name=${name%%:*}
  [[ -e $here/stand_ins/$name.Dockerfile ]] || { echo "there is no stand-in for $image" >&2; exit 1; }
  root
  docker image inspect keepline-stand-in:base >/dev/null 2>&1 ||
    tar -C "$folder/root" -c --exclude=./usr/share/{doc,man,locale} --exclude=./{proc,sys} . |
    docker import - keepline-stand-in:base >/dev/null
  docker build -q --network none -t "$image" -f "$here/stand_ins/$name.Dockerfile" "$here/stand_ins" >/dev/null
}

images() {
  local image
  for image in "$@"; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    if timeout 300 docker pull -q "$image" >/dev/null 2>&1; then
      echo "pulled $image"
    else
      stand_in "$image"
      echo "made a stand-in for $image"
    fi
  done
}

case $action in
  install) install ;;
  images) images "$@" ;;
  *) echo "usage: $0 install FOLDER | images FOLDER IMAGE..." >&2; exit 2 ;;
esac
