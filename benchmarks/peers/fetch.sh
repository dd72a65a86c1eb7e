#!/usr/bin/env bash
# Clone the authors' training scripts that `make bench` compares with, at the commits that were measured, next to this
# repository: benchmarks/peers/fetch.sh [FOLDER], by default ../peers
set -euo pipefail
folder=${1:-../peers}
fetch() {
    [[ -d $folder/$1 ]] || git clone --quiet "$2" "$folder/$1"
    git -C "$folder/$1" checkout --quiet "$3"
}
fetch kunal627 https://github.com/Kunal627/kunal627.github.io 66699470c4680670d4caf084ead6c377ae38b850
fetch pytorch-examples https://github.com/pytorch/examples 77f55b912142e11fcfdf5b530231fb9c52f181e8
