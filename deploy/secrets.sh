#!/usr/bin/env bash
# Create the secrets that deploy/compose.yaml mounts, and .env from env.example. Existing files are kept.
# To use another folder: KEEPLINE_SECRETS=/etc/keepline/secrets deploy/secrets.sh (and the same line in .env).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${KEEPLINE_SECRETS:-$here/secrets}

# Only the owner can enter the folder. The files are world-readable, because each container runs as a different user.
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

new() { # NAME TEXT
  if [[ ! -e $folder/$1 ]]; then
    printf '%s\n' "$2" >"$folder/$1"
    echo "made $folder/$1"
  fi
}
random() { head -c 24 /dev/urandom | od -An -v -t x1 | tr -d ' \n'; }

new auth_secret "$(random)"
new service_key "$(random)"
new turn_secret "$(random)"
new redis_auth "requirepass $(random)"
new postgres_password "$(random)"
new grafana_password "$(random)"
read -r _ redis_password <"$folder/redis_auth"
new redis_url "redis://:$redis_password@redis:6379/0"
new database_url "postgresql://keepline:$(cat "$folder/postgres_password")@postgres:5432/keepline"

if [[ ! -e $here/.env ]]; then
  cp "$here/env.example" "$here/.env"
  echo "made $here/.env: set KEEPLINE_ORIGINS and KEEPLINE_TURN_URLS in it"
fi
