//! What does a tensor's name say? The little that merging must know, as data.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::Tensor;

/// Buffers that a model derives from its config: left out unless a file format of the future needs them.
const DERIVED: [&str; 7] = [
    "*rotary_emb.inv_freq",
    "*rotary_emb.cos_cached",
    "*rotary_emb.sin_cached",
    "*rotary_pos_emb.inv_freq",
    "*position_ids",
    "*attn.masked_bias",
    "*attention.masked_bias",
];

/// Input embeddings, by the end of their names.
pub const EMBEDDINGS: [&str; 7] = [
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "shared.weight",
    "embedding.weight",
];

/// Output heads, by the end of their names.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

pub fn derived(name: &str, tensor: &Tensor) -> bool {
    // GPT-2's causal mask is called like a bias, but has four axes.
    let causal_mask = tensor.shape.len() == 4 && (name.ends_with("attn.bias") || name.ends_with("attention.bias"));
    causal_mask || DERIVED.iter().any(|glob| matches(glob, name))
}

pub fn is_head(name: &str) -> bool {
    HEADS.iter().any(|end| ends(name, end))
}

/// Whether the first axis of this tensor is the vocabulary.
pub fn over_vocabulary(name: &str) -> bool {
    is_head(name) || EMBEDDINGS.iter().any(|end| ends(name, end))
}

/// Whether `name` is `end`, or ends with it after a dot.
pub fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// Globs as in a shell, without classes: `*` is any text (dots, too), `?` one character.
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    // possible[j]: the glob so far matches the first j characters.
    let mut possible = vec![false; name.len() + 1];
    possible[0] = true;
    for g in glob {
        let mut next = vec![false; name.len() + 1];
        for j in 0..=name.len() {
            next[j] = match g {
                '*' => possible[j] || (j > 0 && next[j - 1]),
                '?' => j > 0 && possible[j - 1],
                c => j > 0 && possible[j - 1] && name[j - 1] == c,
            };
        }
        possible = next;
    }
    possible[name.len()]
}

/// How many numbered layers there are, if the names have exactly one stack of them.
pub fn layers<'a>(names: impl Iterator<Item = &'a str>) -> Option<usize> {
    const STACKS: [&str; 5] = ["layers", "layer", "h", "blocks", "block"];
    let mut stacks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for name in names {
        let mut start = 0;
        // The outermost numbered stack counts; T5's `block.3.layer.1` is block 3.
        while let Some(dot) = name[start..].find('.') {
            let (word, rest) = (&name[start..start + dot], &name[start + dot + 1..]);
            let number = rest.split('.').next().and_then(|n| n.parse().ok());
            if let (true, Some(number)) = (STACKS.contains(&word), number) {
                stacks.entry(&name[..start + dot]).or_default().insert(number);
                break;
            }
            start += dot + 1;
        }
    }
    match stacks.len() {
        1 => stacks.values().next().map(BTreeSet::len),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        assert!(matches("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(matches("model.layers.?.mlp*", "model.layers.3.mlp.up_proj.weight"));
        assert!(!matches("model.layers.?.mlp*", "model.layers.13.mlp.up_proj.weight"));
        assert!(matches("lm_head.weight", "lm_head.weight") && !matches("lm_head", "lm_head.weight"));
        assert!(matches("*", "") && matches("a*b*c", "a.b.b.c") && !matches("a*b*c", "a.b"));
    }

    #[test]
    fn layers_are_counted_where_there_is_one_stack() {
        assert_eq!(layers(["model.layers.0.a", "model.layers.1.a", "model.layers.1.b", "lm_head.weight"].into_iter()), Some(2));
        assert_eq!(layers(["encoder.block.0.layer.0.x", "encoder.block.0.layer.1.x"].into_iter()), Some(1));
        assert_eq!(layers(["encoder.block.0.x", "decoder.block.0.x"].into_iter()), None);
        assert_eq!(layers(["weight"].into_iter()), None);
    }
}
