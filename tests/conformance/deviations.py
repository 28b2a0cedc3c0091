"""What mergekit 0.1.5 and mergecore do differently to some architectures."""

from __future__ import annotations

MERGEKIT_REFUSES = {
    "t5-2019": "DenseReluDense.wi_0.weight required but not present",  # its list has T5 1.1 alone
    "bert": 'can only concatenate list (not "tuple")',  # an optional tensor with aliases: its bug
}
"""Families that mergekit does not merge, and what it says."""

MERGEKIT_KEEPS_LAYERS = {"qwen2": "must be equal to the number of `layer_types`"}
"""Families whose number of layers mergekit cannot change: a list in their config has one entry a
layer, and it leaves that as it was. And what it says."""

MERGEKIT_DROPS = {
    "t5": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"},
    "bert-mlm": {
        "cls.predictions.transform.LayerNorm.beta",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    },
}
"""Tensors that its list of the architecture lacks: it leaves them out, and says nothing."""

DERIVED = {"bert-mlm": {"bert.embeddings.position_ids"}}
"""Buffers that loaders make themselves, which mergecore leaves out."""


def own_name(family: str, name: str) -> str:
    """What a tensor of mergekit's is called in the inputs: it writes norms by their new names."""
    if family == "bert-mlm":
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta")
    return name
