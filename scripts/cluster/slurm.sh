#!/usr/bin/env bash
# A search over the machines of a Slurm allocation; what is said after the script goes to `nas search`:
#
#   sbatch --nodes 4 --gpus-per-node 8 scripts/cluster/slurm.sh --study mine --space resnet --trials 200
#
# Submitted from a folder that every machine sees, where `nas` with its extra ray is on the PATH (say below how to get it there).
# Name the study: at the time limit or under preemption the search is suspended and the job queued again, and the same command
# goes on. Checked with shellcheck, and run with stand-ins for srun and scontrol on one machine; never under Slurm itself.
#
#SBATCH --job-name=nas
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# This script, and nothing else, is told 120 s before the end; `nas` needs seconds for its checkpoints.
#SBATCH --signal=B:TERM@120
# A machine that fails costs its workers, not the job.
#SBATCH --no-kill
set -euo pipefail

# module load …, or: source .venv/bin/activate

ip=$(hostname --ip-address | awk '{print $1}')
case $ip in 127.*) ip=$(hostname --all-ip-addresses | awk '{print $1}') ;; esac
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS=$ip:$port RAY_USAGE_STATS_ENABLED=0
# Whoever reaches a Ray cluster can run anything on it; the token keeps it to this job (Ray before 2.52 ignores it).
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# The head is on the first machine, where this script runs, too. Ray finds out for itself how many GPUs each one has.
# shellcheck disable=SC2016  # expanded there
srun --no-kill --kill-on-bad-exit=0 --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c '
    common="--num-cpus=$SLURM_CPUS_PER_TASK --disable-usage-stats --block"
    if [ "$SLURM_PROCID" -eq 0 ]; then
      exec ray start --head --node-ip-address="${RAY_ADDRESS%:*}" --port="${RAY_ADDRESS##*:}" --include-dashboard=false \
        --temp-dir="${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID" $common
    fi
    until ray start --address="$RAY_ADDRESS" $common; do sleep 5; done
  ' >"ray-$SLURM_JOB_ID.log" 2>&1 &
cluster=$!
trap 'kill "$cluster" 2>/dev/null || true' EXIT

for _ in {1..60}; do
  (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null && break
  kill -0 "$cluster" 2>/dev/null || break
  sleep 2
done

# `auto` is what RAY_ADDRESS says. Workers on machines that join later, or come back, are taken when they are there.
nas search --ray auto --gpus-per-worker 1 "$@" &
search=$!
# The first signal suspends the search, a second one would break it off.
told=
trap 'told=yes; trap "" TERM; kill -TERM "$search" 2>/dev/null || true' TERM
status=0
wait "$search" || status=$?
if [ "$status" -eq 143 ]; then # the signal ended the waiting
  status=0
  wait "$search" || status=$?
fi

# Suspended; or told to, and it ended in another way, as when its database was away. Not when it has done all there was to do.
if [ "$status" -eq 130 ] || { [ -n "$told" ] && [ "$status" -ne 0 ]; }; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
