//! What does a tensor's name say? The little that merging must know, as data.

use std::collections::{BTreeMap, BTreeSet};

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

pub fn derived(name: &str, shape: &[u64]) -> bool {
    // GPT-2's causal mask is called like a bias, but has four axes.
    let causal_mask = shape.len() == 4 && (name.ends_with("attn.bias") || name.ends_with("attention.bias"));
    causal_mask || DERIVED.iter().any(|pattern| glob(pattern, name))
}

pub fn is_head(name: &str) -> bool {
    HEADS.iter().any(|end| ends(name, end))
}

/// What else has a row a token, by the end of its name: BERT's head, and the biases of heads.
const OVER_VOCABULARY: [&str; 7] = [
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
    "cls.predictions.decoder.weight",
    "embed_out.bias",
    "lm_head.bias",
    "lm_head.decoder.bias",
    "lm_head.decoder.weight",
];

/// Whether the first axis of this tensor is the vocabulary.
pub fn over_vocabulary(name: &str) -> bool {
    is_head(name) || EMBEDDINGS.iter().chain(&OVER_VOCABULARY).any(|end| ends(name, end))
}

/// The first name of an embedding that encoder and decoder share, for one of its other names.
pub fn shared_embedding(name: &str) -> Option<String> {
    let start = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"].iter().find_map(|end| name.strip_suffix(end))?;
    (start.is_empty() || start.ends_with('.')).then(|| format!("{start}shared.weight"))
}

/// The input embedding among names, in the order of `EMBEDDINGS`.
pub fn embedding<'n>(mut names: impl Iterator<Item = &'n String> + Clone) -> Option<&'n String> {
    let found = |end: &&'static str| names.clone().find(|name| ends(name, end));
    let first = EMBEDDINGS.iter().find_map(found);
    first.or_else(|| names.find(|name| over_vocabulary(name)))
}

/// What an error calls a tensor; in memory it may have no name.
pub fn called(tensor: &str) -> String {
    match tensor {
        "" => "the array".into(),
        name => format!("tensor {name}"),
    }
}

/// Whether `name` is `end`, or ends with it after a dot.
pub fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// Globs as in a shell, without classes: `*` is any text (dots, too), `?` one character.
pub fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // possible[j]: the pattern so far matches the first j characters.
    let mut possible = vec![false; name.len() + 1];
    possible[0] = true;
    for g in pattern {
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

/// A tensor's place in a stack of numbered layers: `model.layers.3.mlp.up_proj.weight` is `model.layers`, 3, `mlp.up_proj.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer<'n> {
    pub stack: &'n str,
    pub number: usize,
    pub rest: &'n str,
}

impl<'n> Layer<'n> {
    /// The outermost numbered stack counts; T5's `block.3.layer.1` is block 3.
    pub fn of(name: &'n str) -> Option<Layer<'n>> {
        const STACKS: [&str; 5] = ["layers", "layer", "h", "blocks", "block"];
        let mut start = 0;
        while let Some(dot) = name[start..].find('.') {
            let (word, after) = (&name[start..start + dot], &name[start + dot + 1..]);
            let (number, rest) = after.split_once('.').unwrap_or((after, ""));
            if let (true, Ok(number)) = (STACKS.contains(&word), number.parse()) {
                return Some(Layer { stack: &name[..start + dot], number, rest });
            }
            start += dot + 1;
        }
        None
    }

    /// The same tensor of another layer.
    pub fn renumbered(&self, number: usize) -> String {
        let dot = if self.rest.is_empty() { "" } else { "." };
        format!("{}.{number}{dot}{}", self.stack, self.rest)
    }
}

/// The stacks of numbered layers, and how many layers each has (the highest number and one).
pub fn stacks<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut stacks = BTreeMap::new();
    for layer in names.filter_map(Layer::of) {
        let count: &mut usize = stacks.entry(layer.stack).or_default();
        *count = (*count).max(layer.number + 1);
    }
    stacks
}

/// How many numbered layers there are, if the names have exactly one stack of them.
pub fn layers<'a>(names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let mut stacks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for layer in names.filter_map(Layer::of) {
        stacks.entry(layer.stack).or_default().insert(layer.number);
    }
    match stacks.len() {
        1 => stacks.values().next().map(BTreeSet::len),
        _ => None,
    }
}

/// Whether a tensor outside the layers comes before them (embeddings, positions) rather than after (final norm, head).
pub fn before_layers(name: &str) -> bool {
    const POSITIONS: [&str; 4] = ["*wpe.weight", "*embed_positions.weight", "*position_embeddings.weight", "*embeddings.*"];
    // How images and sounds are taken in.
    const TAKEN_IN: [&str; 10] = [
        "*patch_embed*",
        "*patch_conv*",
        "*pos_embed*",
        "*positional_embedding*",
        "*class_embedding",
        "*ln_pre.*",
        "*layernorm_pre.*",
        "*pre_layrnorm.*",
        "*conv1.*",
        "*conv2.*",
    ];
    let first = POSITIONS.iter().chain(&TAKEN_IN).any(|pattern| glob(pattern, name));
    first || EMBEDDINGS.iter().any(|end| ends(name, end)) || kept_for_all(name)
}

/// Whether layers may share this tensor: T5 keeps it in the first layer of a stack. (Where every layer has one, each keeps its own.)
pub fn kept_for_all(name: &str) -> bool {
    ends(name, "relative_attention_bias.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        assert!(glob("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(glob("model.layers.?.mlp*", "model.layers.3.mlp.up_proj.weight"));
        assert!(!glob("model.layers.?.mlp*", "model.layers.13.mlp.up_proj.weight"));
        assert!(glob("lm_head.weight", "lm_head.weight") && !glob("lm_head", "lm_head.weight"));
        assert!(glob("*", "") && glob("a*b*c", "a.b.b.c") && !glob("a*b*c", "a.b"));
    }

    #[test]
    fn a_layer_is_the_outermost_number() {
        let layer = |name| Layer::of(name).map(|l| (l.stack, l.number, l.rest));
        assert_eq!(layer("model.layers.10.mlp.up.weight"), Some(("model.layers", 10, "mlp.up.weight")));
        assert_eq!(layer("encoder.block.3.layer.1.x"), Some(("encoder.block", 3, "layer.1.x")));
        assert_eq!(layer("h.0"), Some(("h", 0, "")));
        assert_eq!(layer("model.layers.x.weight"), None);
        assert_eq!(Layer::of("a.layers.10.w").unwrap().renumbered(3), "a.layers.3.w");
        assert_eq!(Layer::of("h.0").unwrap().renumbered(12), "h.12");
    }

    #[test]
    fn layers_are_counted_where_there_is_one_stack() {
        assert_eq!(layers(["model.layers.0.a", "model.layers.1.a", "model.layers.1.b", "lm_head.weight"].into_iter()), Some(2));
        assert_eq!(layers(["encoder.block.0.layer.0.x", "encoder.block.0.layer.1.x"].into_iter()), Some(1));
        assert_eq!(layers(["encoder.block.0.x", "decoder.block.0.x"].into_iter()), None);
        assert_eq!(layers(["weight"].into_iter()), None);
    }
}
