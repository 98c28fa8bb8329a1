"""Who takes part, in which variants."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.generation_cpu.environments import GENAI, LLAMA_CPP, OPTIMUM, TRANSFORMERS, VLLM, Environment
from carpool.models.starter import CHAT_MODEL

HERE = Path(__file__).parent

CARPOOL = "Carpool"
OPENVINO_GENAI = "OpenVINO GenAI"
VLLM_CPU = "vLLM-CPU"
TRANSFORMERS_STATIC = "transformers generate"
TRANSFORMERS_CONTINUOUS = "transformers generate_batch"
LLAMA = "llama.cpp"

_IR = {
    "bf16": [],
    "fp32": ["--weight-format", "fp32"],
    "int8": ["--weight-format", "int8"],
    "int4": ["--weight-format", "int4", "--group-size", "64", "--ratio", "1.0", "--all-layers"],
}
"""Formats to export with optimum-intel's options; no larger group of 4-bit weights divides the rows."""

_STEP_TOKENS, _LONG_STEP_TOKENS = 512, 2048
"""The most tokens of a step: Carpool's default, which keeps running streams fluent, and what engines have
where throughput is all."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run an engine, as the command of a process that speaks `workload.answer`."""

    engine: str
    name: str
    command: tuple[str, ...]


def is_int4(variant: Variant) -> bool:
    """Whether it is Carpool with 4-bit weights."""
    return variant.engine == CARPOOL and variant.name.startswith("int4")


def variants(gguf: Path, checkpoint: Path, *, has_bf16: bool) -> Iterator[Variant]:
    """All of them; makes environments and exports models on first use. `checkpoint` is the bf16 directory.

    `has_bf16` says whether the CPU computes in bf16; elsewhere floating point is f32, whatever is stored.
    """
    half, dtype = ("bf16", "bfloat16") if has_bf16 else ("f16", "float32")
    ours = [(weights, half, _STEP_TOKENS) for weights in ("int4", "int8", "mixed", "bf16")]
    ours += [("bf16", "u8", _STEP_TOKENS), ("mixed", half, _LONG_STEP_TOKENS)]
    for weights, kv, tokens in ours if has_bf16 else [*ours, ("f32", half, _STEP_TOKENS)]:
        # The file's own 4-bit matrices; everything else from the checkpoint that all have.
        reference = CHAT_MODEL.reference if weights == "int4" else str(checkpoint)
        options = {"weights": weights, "kv_cache_precision": kv, "max_num_batched_tokens": tokens}
        module = "bench.generation_cpu.carpool_contestant"
        command = (sys.executable, "-m", module, reference, json.dumps(options))
        yield Variant(CARPOOL, f"{weights}, KV {kv}{_named(tokens)}", command)
    exported = {name: export(checkpoint, name) for name in _IR}
    theirs = [(name, half, _STEP_TOKENS) for name in exported]
    theirs += [("bf16", "u8", _STEP_TOKENS), ("bf16", half, _LONG_STEP_TOKENS)]
    for name, kv, tokens in theirs:
        properties = json.dumps({"KV_CACHE_PRECISION": kv})
        title = f"{name} IR, KV {kv}{_named(tokens)}"
        yield _variant(OPENVINO_GENAI, title, GENAI, "genai", exported[name], tokens, properties)
    vllm = _variant(VLLM_CPU, dtype, VLLM, "vllm", checkpoint, dtype)
    # Its documentation asks for this library, which comes with it, to be there before everything else.
    openmp = VLLM.python().parents[1] / "lib" / "libiomp5.so"
    yield replace(vllm, command=("env", f"LD_PRELOAD={openmp}", *vllm.command))
    yield _variant(TRANSFORMERS_STATIC, dtype, TRANSFORMERS, "transformers", checkpoint, dtype, "static")
    yield _variant(
        TRANSFORMERS_CONTINUOUS, dtype, TRANSFORMERS, "transformers", checkpoint, dtype, "continuous"
    )
    yield _variant(LLAMA, "Q4_1", LLAMA_CPP, "llama_cpp", gguf)


def _named(step_tokens: int) -> str:
    return "" if step_tokens == _STEP_TOKENS else f", steps of {step_tokens}"


def _variant(engine: str, name: str, environment: Environment, script: str, *arguments: object) -> Variant:
    command = (environment.python(), HERE / f"{script}_contestant.py", *arguments)
    return Variant(engine, name, tuple(map(str, command)))


def export(checkpoint: Path, name: str) -> Path:
    """The checkpoint as an IR beside it, made by optimum-intel unless it is there."""
    target = checkpoint.with_name(f"{checkpoint.name}-ir-{name}")
    if not (target / "openvino_tokenizer.xml").exists():  # the last one that it writes
        tool = OPTIMUM.python().with_name("optimum-cli")
        task = ["--task", "text-generation-with-past"]
        subprocess.run(
            [tool, "export", "openvino", "--model", checkpoint, *task, *_IR[name], target], check=True
        )
    return target
