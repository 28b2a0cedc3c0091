//! What is each tensor of an adapter? PEFT's names are read, and nothing is passed over.

use std::collections::BTreeMap;

use super::super::Tensor;

/// The factors of one module.
pub struct Factors {
    /// (r, in), or (r, vocabulary) of an embedding.
    pub a: Tensor<'static>,
    /// (out, r), or (dimensions, r) of an embedding.
    pub b: Tensor<'static>,
    pub magnitude: Option<Tensor<'static>>,
    pub embedding: bool,
}

pub struct Keys {
    /// Factors by the module that they are for.
    pub factors: BTreeMap<String, Factors>,
    /// Tensors that take the place of the model's, by the model's name for them.
    pub whole: BTreeMap<String, Tensor<'static>>,
}

const PREFIX: &str = "base_model.model.";

/// How names of factors end.
const ENDS: [(&str, Kind); 6] = [
    (".lora_A.weight", Kind::A),
    (".lora_B.weight", Kind::B),
    (".lora_embedding_A", Kind::EmbeddingA),
    (".lora_embedding_B", Kind::EmbeddingB),
    (".lora_magnitude_vector", Kind::Magnitude),
    (".lora_magnitude_vector.weight", Kind::Magnitude),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Magnitude,
}

/// Sorts an adapter's tensors, or says which one is odd.
pub fn sort(tensors: BTreeMap<String, Tensor<'static>>) -> Result<Keys, String> {
    let (mut found, mut whole) = (BTreeMap::<String, BTreeMap<Kind, Tensor>>::new(), BTreeMap::new());
    for (key, tensor) in tensors {
        let name = key.strip_prefix(PREFIX).ok_or_else(|| unknown(&key))?;
        let twice = match ENDS.iter().find_map(|(end, kind)| Some((name.strip_suffix(end)?, *kind))) {
            Some((module, kind)) => found.entry(module.into()).or_default().insert(kind, tensor),
            None if name.contains(".lora_") => return Err(unknown(&key)),
            // What peft wraps keeps its name but for the wrapper's.
            None => whole.insert(name.replace(".base_layer.", ".").replace(".modules_to_save.", "."), tensor),
        };
        if twice.is_some() {
            return Err(format!("tensor {key} is there twice under two names"));
        }
    }
    let factors = found.into_iter().map(|(module, kinds)| Ok((module.clone(), pair(&module, kinds)?)));
    Ok(Keys { factors: factors.collect::<Result<_, String>>()?, whole })
}

fn pair(module: &str, mut kinds: BTreeMap<Kind, Tensor<'static>>) -> Result<Factors, String> {
    let magnitude = kinds.remove(&Kind::Magnitude);
    let embedding = kinds.contains_key(&Kind::EmbeddingA) || kinds.contains_key(&Kind::EmbeddingB);
    let (a, b) = if embedding { (Kind::EmbeddingA, Kind::EmbeddingB) } else { (Kind::A, Kind::B) };
    match (kinds.remove(&a), kinds.remove(&b), kinds.is_empty()) {
        (Some(a), Some(b), true) => Ok(Factors { a, b, magnitude, embedding }),
        _ => Err(format!("module {module} does not have just the two factors lora_A and lora_B; is it saved whole?")),
    }
}

fn unknown(key: &str) -> String {
    format!("tensor {key} is none that PEFT writes for a LoRA ({PREFIX}MODULE.lora_A.weight and its like), and is not known")
}
