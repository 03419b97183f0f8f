#!/usr/bin/env bash
# Plays a deploy, an update and a revert on a throw-away Nomad on this machine.
#
# Runs raw_exec.nomad.hcl on `nomad agent -dev`, with a git repository and a folder of models of its
# own and the stand-in model server (or the one that SERVER_COMMAND names). Everything is in a
# temporary folder, on free ports of 127.0.0.1, and gone at the end.
#
#   deploy/nomad/try.sh
#
# Exit codes: 0 every step came out, 1 one did not, 2 a program is missing.
set -euo pipefail

readonly WAIT_SECONDS=120
readonly GROUP=try
readonly NODE=try-node

for program in nomad git python3 curl "${RECONCILER:=reconciler}"; do
  if ! type -P "$program" >/dev/null; then
    echo "$program is not on PATH; this needs nomad, git, python3, curl and reconciler (or RECONCILER=/path/to/it)" >&2
    exit 2
  fi
done
RECONCILER=$(type -P "$RECONCILER")

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
model=$here/../../reconciler/demo/savedmodel
work=$(mktemp -d)
nomad_pid=

finish() {
  local code=$?
  trap - EXIT
  if [ "$code" -ne 0 ] && [ -n "$nomad_pid" ]; then
    echo "--- what Nomad and the tasks said last:" >&2
    nomad job status "tfserving-$GROUP" >&2 || true
    tail -n 20 "$work/nomad.log" "$work"/alloc/*/alloc/logs/*.stderr.0 >&2 || true
  fi
  if [ -n "$nomad_pid" ]; then
    nomad job stop -detach -purge "tfserving-$GROUP" >/dev/null 2>&1 || true
    wait_until "the tasks have ended" no_answer "http://127.0.0.1:$status_port/livez" || code=1
    kill "$nomad_pid" 2>/dev/null || true
    wait_until "Nomad has ended" has_ended "$nomad_pid" || kill -KILL "$nomad_pid"
  fi
  rm -rf "$work"
  exit "$code"
}

answers() { curl --silent --fail --max-time 2 --output /dev/null "$1"; }

has_ended() { ! kill -0 "$1" 2>/dev/null; }

no_answer() { ! answers "$1"; }

# wait_until SENTENCE COMMAND...: runs the command until it succeeds.
wait_until() {
  local sentence=$1 end=$((SECONDS + WAIT_SECONDS))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "within $WAIT_SECONDS s it did not come about that $sentence" >&2
      return 1
    fi
    sleep 0.2
  done
  echo "$sentence"
}

# version_is VERSION STATE: what the model server says of that version.
version_is() {
  curl --silent --fail --max-time 2 "http://127.0.0.1:$rest_port/v1/models/ranker/versions/$1" |
    python3 -c '
import json, sys
states = [item["state"] for item in json.load(sys.stdin)["model_version_status"]]
sys.exit(states != [sys.argv[1]])' "$2" 2>/dev/null
}

in_repo() { git -C "$work/config" -c user.name=Try -c user.email=try@example.com "$@"; }

serve_version() {
  printf 'source: file://%s/models-source/ranker\nversion: %s\n' "$work" "$1" \
    >"$work/config/deployments/$GROUP/ranker.yaml"
  in_repo add . && in_repo commit --quiet --message "Serve ranker $1"
}

trap finish EXIT

read -r http_port rpc_port serf_port status_port grpc_port rest_port < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*(each.getsockname()[1] for each in sockets))')

mkdir -p "$work/config/groups" "$work/config/deployments/$GROUP" "$work/models-source/ranker"
cp -r "$model" "$work/models-source/ranker/1"
cp -r "$model" "$work/models-source/ranker/2"
git init --quiet --initial-branch=main "$work/config"
printf 'nodes: [%s]\n' "$NODE" >"$work/config/groups/$GROUP.yaml"
serve_version 1

cat >"$work/agent.hcl" <<CONFIG
name      = "$NODE"
bind_addr = "127.0.0.1"

ports {
  http = $http_port
  rpc  = $rpc_port
  serf = $serf_port
}

client {
  alloc_dir = "$work/alloc"

  meta {
    reconciler_group = "$GROUP"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}
CONFIG

export NOMAD_ADDR=http://127.0.0.1:$http_port
nomad agent -dev -config="$work/agent.hcl" >"$work/nomad.log" 2>&1 &
nomad_pid=$!
node_is_ready() { nomad node status 2>/dev/null | grep --quiet "$NODE.* ready"; }
wait_until "Nomad takes jobs" node_is_ready

nomad var put -out=none "nomad/jobs/tfserving-$GROUP" git_token=none
nomad job run -detach \
  -var "group=$GROUP" \
  -var "repo=file://$work/config" \
  -var "agent_command=$RECONCILER" \
  -var "server_command=${SERVER_COMMAND:-$RECONCILER dev tf-serving}" \
  -var agent_user= -var agent_uid=-1 -var server_user= \
  -var "models_dir=$work/models" -var "state_dir=$work/state" \
  -var "status_port=$status_port" -var "grpc_port=$grpc_port" -var "rest_port=$rest_port" \
  -var server_cpu_mhz=100 -var server_memory_mb=256 \
  "$here/raw_exec.nomad.hcl"

wait_until "the agent is ready" answers "http://127.0.0.1:$status_port/readyz"
wait_until "version 1 is served" version_is 1 AVAILABLE

serve_version 2
wait_until "version 2 is served" version_is 2 AVAILABLE
wait_until "version 1 is gone" version_is 1 END

in_repo revert --no-edit HEAD >/dev/null
wait_until "version 1 is served again after the revert" version_is 1 AVAILABLE

"$RECONCILER" status "http://127.0.0.1:$status_port"
