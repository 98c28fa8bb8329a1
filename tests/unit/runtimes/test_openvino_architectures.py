"""What each architecture's graph makes of a checkpoint, beyond what the references show."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.open import open_checkpoint
from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from carpool.runtimes.openvino.decoder_graph import DecoderGraph
from carpool.runtimes.openvino.device import compile_model, default_precision, uses_matrix_units
from carpool.runtimes.openvino.gpt2 import Gpt2
from carpool.runtimes.openvino.gpt_neo import GptNeo
from carpool.runtimes.openvino.llama import Llama
from carpool.runtimes.openvino.qwen3 import Qwen3
from tests.unit.runtimes.random_llama import RandomLlama
from tests.unit.runtimes.steps import Row, step
from tests.unit.runtimes.tiny_decoders import (
    ABSENT,
    CONTEXT_LENGTH,
    DECODERS,
    VOCAB_SIZE,
    TinyDecoder,
    prompts,
)
from tests.unit.runtimes.tiny_gguf import write_gguf

F32 = DecoderConfig(weights=WeightFormat.F32, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=4 << 20)
MIXED = DecoderConfig(weights=WeightFormat.MIXED, kv_cache_bytes=4 << 20)
ALL = SamplingParams(temperature=0, top_logprobs=VOCAB_SIZE)
PROMPTS = prompts()
PROMPT, LONG = PROMPTS[6], 11
IN_GGUF = ["gpt2", "llama", "llama-linear", "qwen3"]


def logprobs(checkpoint: Checkpoint, config: DecoderConfig = F32) -> NDArray[np.float64]:
    """Of all tokens after the prompt, by token id."""
    decoder = load_decoder(checkpoint, config, num_threads=1)
    found = last_logprobs(decoder, Row(PROMPT, [2, 0, 1], sample=ALL))
    decoder.close()
    return found


def last_logprobs(decoder: OpenVinoDecoder, row: Row) -> NDArray[np.float64]:
    [found] = decoder.launch(step(row)).result().logprobs
    assert found is not None
    return np.array([logprob for _, logprob in sorted(found.top)])


def changed(name: str, **overrides: Any) -> TinyDecoder:
    """The same weights under another config.json."""
    return replace(DECODERS[name], overrides=overrides)


@pytest.mark.parametrize(
    ("name", "graph", "expected"),
    [
        ("gpt2", Gpt2, {"MVN": 9, "PagedAttention": 4}),
        ("gpt-neo", GptNeo, {"MVN": 9, "PagedAttention": 4}),
        ("llama", Llama, {"RMS": 9, "RoPE": 8, "PagedAttention": 4}),
        ("qwen3", Qwen3, {"RMS": 17, "RoPE": 8, "PagedAttention": 4}),
    ],
)
def test_the_plugins_fusions_match(
    tmp_path: Path, name: str, graph: type[DecoderGraph], expected: dict[str, int]
) -> None:
    """Each norm and each rotation is one node."""
    model = graph(open_checkpoint(DECODERS[name].write(tmp_path)), WeightFormat.F32, "f32", 1).model()
    compiled = compile_model(model, num_threads=1, precision="f32")
    nodes = compiled.get_runtime_model().get_ops()
    found = Counter(str(node.get_rt_info()["layerType"].astype(str)) for node in nodes)
    assert {kind: found[kind] for kind in expected} == expected


def kinds(decoder: OpenVinoDecoder) -> Counter[tuple[str, str]]:
    """Of the compiled graph's nodes: what they are, and by what and in which precision they are computed."""
    nodes = decoder._request.get_compiled_model().get_runtime_model().get_ops()
    infos = [node.get_rt_info() for node in nodes]
    return Counter(
        (str(info["layerType"].astype(str)), str(info["primitiveType"].astype(str))) for info in infos
    )


@pytest.mark.all_cores
@pytest.mark.skipif(not uses_matrix_units(default_precision()), reason="takes a processor with AMX")
def test_the_plugins_fusions_match_with_mixed_weights() -> None:
    """The output layer is a product of integers, and what makes it one leaves the other layers alone."""
    checkpoint = RandomLlama(hidden_size=128, intermediate_size=192)
    decoder = load_decoder(checkpoint, MIXED, num_threads=2)
    found: Counter[str] = Counter()
    for names, count in kinds(decoder).items():
        found.update(dict.fromkeys(names, count))
    expected = {"LLMMLP": 3, "RMS": 7, "RoPE": 6, "PagedAttention": 3, "brgemm_avx512_amx_i8": 1}
    assert {kind: found[kind] for kind in expected} == expected


@pytest.mark.all_cores
@pytest.mark.skipif(not uses_matrix_units(default_precision()), reason="takes a processor with AMX")
@pytest.mark.parametrize("weights", [each for each in WeightFormat if each is not WeightFormat.F32])
def test_what_goes_around_the_layers_is_bf16_where_their_products_are(weights: WeightFormat) -> None:
    """The plugin computes in f32 what leads to a graph's outputs, back to the next product."""
    checkpoint = RandomLlama(hidden_size=128, intermediate_size=192)
    decoder = load_decoder(checkpoint, replace(MIXED, weights=weights), num_threads=2)
    found = kinds(decoder)
    assert found["Eltwise", "jit_avx512_bf16"] >= 2 * 3  # two sums a layer
    assert found["Eltwise", "jit_avx512_f32"] <= 1  # the rotary embedding's angles


@pytest.mark.skipif(not uses_matrix_units(default_precision()), reason="takes a processor with AMX")
@pytest.mark.parametrize("has_bias", [False, True])
def test_an_output_layer_with_a_bias_is_no_product_of_integers(*, has_bias: bool) -> None:
    checkpoint = RandomLlama(hidden_size=128, intermediate_size=192)
    if has_bias:
        checkpoint._weights["lm_head.bias"] = np.ones(checkpoint.config["vocab_size"], np.float32)
    decoder = load_decoder(checkpoint, MIXED, num_threads=1)
    assert len(decoder._request.model_outputs) == (1 if has_bias else 2)


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_files_give_what_safetensors_give(tmp_path: Path, name: str) -> None:
    expected = logprobs(open_checkpoint(DECODERS[name].write(tmp_path)))
    checkpoint = open_checkpoint(write_gguf(DECODERS[name], tmp_path / "m.gguf"))
    assert checkpoint.architecture == DECODERS[name].architecture
    np.testing.assert_allclose(logprobs(checkpoint), expected, atol=1e-4)


def test_a_sliding_window_that_gguf_files_do_not_have_is_none(tmp_path: Path) -> None:
    """For Qwen2 the conversion drops it, so every layer attends to everything."""
    full = changed("qwen2", use_sliding_window=False)
    expected = logprobs(open_checkpoint(full.write(tmp_path)))
    assert np.abs(logprobs(open_checkpoint(DECODERS["qwen2"].write(tmp_path / "w"))) - expected).max() > 0.1
    found = logprobs(open_checkpoint(write_gguf(DECODERS["qwen2"], tmp_path / "m.gguf")))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@pytest.mark.parametrize("quantisation", ["Q8_0", "Q4_1"])
def test_quantised_gguf_files_are_held_as_stored(tmp_path: Path, name: str, quantisation: str) -> None:
    """AUTO takes the format of the file, and INT4 loses nothing that the file has."""
    path = write_gguf(DECODERS[name], tmp_path / "m.gguf", gguf.GGMLQuantizationType[quantisation])
    checkpoint = open_checkpoint(path)
    decoder = load_decoder(checkpoint, DecoderConfig(kv_cache_bytes=4 << 20), num_threads=1)
    decoder.close()
    assert decoder.weights is {"Q8_0": WeightFormat.INT8, "Q4_1": WeightFormat.INT4}[quantisation]
    stored = DecoderConfig(
        weights=WeightFormat.INT4, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=4 << 20
    )
    # Not 1, because the CPU may compute in bf16; to round random weights anew would leave about 0.8.
    assert np.corrcoef(logprobs(checkpoint, stored), logprobs(checkpoint))[0, 1] > 0.99


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_a_window_of_null_is_none(tmp_path: Path, name: str) -> None:
    wide, null = changed(name, sliding_window=CONTEXT_LENGTH), changed(name, sliding_window=None)
    expected = logprobs(open_checkpoint(wide.write(tmp_path / "a")))
    np.testing.assert_allclose(logprobs(open_checkpoint(null.write(tmp_path / "b"))), expected, atol=1e-4)
    assert np.abs(logprobs(open_checkpoint(DECODERS[name].write(tmp_path / "c"))) - expected).max() > 0.1


@pytest.mark.parametrize("name", ["gpt-neo", "mistral", "qwen2"])
def test_windows_in_u8_kv_memory(tmp_path: Path, name: str) -> None:
    """Another kernel of the plugin; in chunks that end with a block, and at a decode step."""
    checkpoint = open_checkpoint(DECODERS[name].write(tmp_path))
    found = []
    for precision in (KvCachePrecision.F32, KvCachePrecision.U8):
        config = DecoderConfig(weights=WeightFormat.F32, kv_cache_precision=precision, kv_cache_bytes=4 << 20)
        decoder = load_decoder(checkpoint, config, num_threads=1)
        blocks, prompt = list(range(11)), PROMPTS[LONG]
        for begin, end in ((0, 96), (96, 288), (288, len(prompt) - 1)):
            decoder.launch(step(Row(prompt[begin:end], blocks, begin, sample=None))).result()
        found.append(last_logprobs(decoder, Row(prompt[-1:], blocks, len(prompt) - 1, sample=ALL)))
        decoder.close()
    assert np.corrcoef(found[0], found[1])[0, 1] > 0.95


def test_layer_types_are_what_max_window_layers_says(tmp_path: Path) -> None:
    types = ["full_attention"] * 2 + ["sliding_attention"] * 2
    listed = changed("qwen2", layer_types=types, max_window_layers=0)
    expected = logprobs(open_checkpoint(DECODERS["qwen2"].write(tmp_path / "a")))
    np.testing.assert_array_equal(logprobs(open_checkpoint(listed.write(tmp_path / "b"))), expected)


def test_attention_layers_are_what_attention_types_say(tmp_path: Path) -> None:
    listed = changed("gpt-neo", attention_layers=["global", "local"] * 2, attention_types=ABSENT)
    expected = logprobs(open_checkpoint(DECODERS["gpt-neo"].write(tmp_path / "a")))
    np.testing.assert_array_equal(logprobs(open_checkpoint(listed.write(tmp_path / "b"))), expected)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gpt2", {"add_cross_attention": True}, "attends to an encoder"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation 'quick_gelu' is not supported"),
        ("gpt2", {"n_layer": ABSENT}, "n_layer must be a positive integer, it is None"),
        ("gpt2", {"n_layer": 5}, r"no tensor 'transformer\.h\.4"),
        ("gpt2", {"n_head": 5}, "c_attn has 288 features, its heads 285"),
        ("gpt2", {"scale_attn_weights": "yes"}, "scale_attn_weights must be true or false"),
        ("gpt-neo", {"attention_types": ABSENT}, "attention_types must name 4 layers"),
        ("gpt-neo", {"attention_types": [[["global", "local"], 3]]}, "attention_types must name 4 layers"),
        ("gpt-neo", {"attention_types": [[["global", "sparse"], 2]]}, "attention_types must name 4 layers"),
        ("gpt-neo", {"attention_layers": ["global"]}, "attention_layers must be a list of 4"),
        ("gpt-neo", {"window_size": -1}, "window_size must be a positive integer"),
        ("llama", {"hidden_act": "tanh"}, "activation 'tanh'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "'dynamic'.*default, linear, llama3"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "linear"}},
            "rope_scaling: factor must be a positive number",
        ),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ("llama", {"partial_rotary_factor": 0.5}, "a part of a head"),
        ("llama", {"rope_theta": 0}, "rope_theta must be a positive number"),
        ("llama", {"num_key_value_heads": 4}, "k_proj has 64 features, its heads 128"),
        ("llama", {"head_dim": 33}, "a part of a head"),
        ("mistral", {"sliding_window": 0}, "sliding_window must be a positive integer"),
        ("qwen2", {"layer_types": ["sliding_attention"]}, "layer_types must be a list of 4"),
        ("qwen3", {"rms_norm_eps": ABSENT}, "rms_norm_eps must be a positive number"),
    ],
)
def test_variants_that_would_be_computed_wrongly_are_refused(
    tmp_path: Path, name: str, change: dict[str, Any], words: str
) -> None:
    checkpoint = open_checkpoint(changed(name, **change).write(tmp_path))
    with pytest.raises(ModelFailed, match=words):
        load_decoder(checkpoint, F32, num_threads=1)


def test_low_and_high_frequencies_must_not_meet(tmp_path: Path) -> None:
    rotary = DECODERS["llama"].config["rope_scaling"] | {"low_freq_factor": 4.0}
    checkpoint = open_checkpoint(changed("llama", rope_scaling=rotary).write(tmp_path))
    with pytest.raises(ModelFailed, match="low_freq_factor 4 must be below high_freq_factor 4"):
        load_decoder(checkpoint, F32, num_threads=1)


def test_tensors_of_another_size_are_refused(tmp_path: Path) -> None:
    """A feed-forward layer whose second matrix does not take what the first gives."""

    class Broken(TinyDecoder):
        def weights(self) -> dict[str, NDArray[np.float32]]:
            weights = super().weights()
            name = "model.layers.1.mlp.down_proj.weight"
            return weights | {name: np.ascontiguousarray(weights[name][:, :-8])}

    llama = DECODERS["llama"]
    broken = Broken(llama.name, llama.architecture, llama.model_type, llama.config, llama.prefix)
    with pytest.raises(ModelFailed, match=r"cannot be built as its config\.json says"):
        load_decoder(open_checkpoint(broken.write(tmp_path)), F32, num_threads=1)


@pytest.mark.parametrize("architecture", ["GPTJForCausalLM", "MixtralForCausalLM"])
def test_other_architectures_are_refused_with_what_is_supported(tmp_path: Path, architecture: str) -> None:
    checkpoint = open_checkpoint(changed("llama", architectures=[architecture]).write(tmp_path))
    with pytest.raises(ModelFailed, match=rf"{architecture}.*GPT2LMHeadModel, GPTNeoForCausalLM, Llama"):
        load_decoder(checkpoint, F32, num_threads=1)
