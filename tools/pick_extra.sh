#!/bin/sh
# Prints the extra of mlx-grpc that serves on this machine: serve (Mac), cuda13, cuda12 or cpu (Linux).
# The driver decides: CUDA 13 needs 580 or newer, CUDA 12 needs 550. Where this is wrong: `make serve EXTRA=cpu`.
set -eu

if [ "$(uname -s)" = Darwin ]; then
  echo serve
  exit
fi
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1) || driver=
case $driver in
  '' | *[!0-9]*) echo cpu ;;
  *)
    if [ "$driver" -ge 580 ]; then
      echo cuda13
    elif [ "$driver" -ge 550 ]; then
      echo cuda12
    else
      echo cpu
    fi
    ;;
esac
